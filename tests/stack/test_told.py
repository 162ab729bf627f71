"""What ends a command that runs things, and what is said of it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.demo import orders_of_a_burst
from stack.topology import ROOT
from tests.waiting import until
from twinlog.dev import (
    Misconfigured,
    Program,
    StartFailed,
    Supervisor,
    Told,
    free_port,
    process,
    supervisor,
    until_told,
)
from twinlog.service.dump import SIGNALS


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command ends is its process's: here, not the servers and the signals of all tests."""
    monkeypatch.setattr(process, "_children", set())
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    kept = {signum: signal.getsignal(signum) for signum in signals}
    yield
    for signum, handler in kept.items():
        signal.signal(signum, handler)


async def _hung_up() -> int:
    os.kill(os.getpid(), signal.SIGHUP)
    # The handler has run by now, and what it calls for is the next that the loop does.
    for _ in range(3):
        await asyncio.sleep(0)
    return 7


async def test_a_closed_terminal_ends_it_unless_it_runs_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with pytest.raises(Told, match="SIGHUP"):
        await until_told(_hung_up())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert await until_told(_hung_up()) == 7


async def test_a_signal_that_only_asks_ends_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    async def asked() -> int:
        for signum in SIGNALS:
            os.kill(os.getpid(), signum)
        await asyncio.sleep(0)
        return 7

    before = [signal.getsignal(signum) for signum in SIGNALS]
    assert await until_told(asked()) == 7
    assert capfd.readouterr().err.count("asked (") >= len(SIGNALS)
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


async def test_what_cannot_be_written_is_told_in_one_line() -> None:
    async def fails(error: OSError) -> int:
        raise error

    for error, said in (
        (
            PermissionError(errno.EACCES, "Permission denied", "/x/stack.pid"),
            "/x/stack.pid: Permission denied",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device; make room, then start again: df -h . /var/tmp shows where there is none",
        ),
    ):
        with pytest.raises(StartFailed) as refused:
            await until_told(fails(error))
        assert str(refused.value) == said
    for other in (BrokenPipeError(errno.EPIPE, "Broken pipe"), TimeoutError()):
        with pytest.raises(type(other)):
            await until_told(fails(other))


def _program(module: str, port: int = 1) -> Program:
    return Program(module, f"{module.upper()}_ADDRESS", f"127.0.0.1:{port}")


def _restarting(folder: Path, said: list[str], *programs: Program) -> Supervisor:
    """Runs programs of a folder as `twinlog dev` does."""
    return Supervisor(list(programs), {}, said.append, root=folder, folder=folder, restarts=True)


async def test_a_service_whose_output_nobody_takes_ends_the_run(tmp_path: Path) -> None:
    """It would stand still as soon as its pipe is full."""
    (tmp_path / "loud.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n")

    def say(line: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        async with Supervisor([_program("loud")], {}, say, root=tmp_path, folder=tmp_path):
            pass


async def test_a_program_that_is_refused_waits_for_a_change_while_others_go_on(tmp_path: Path) -> None:
    """Also at the first start, and it says so once; others, which may need it, have only to listen."""
    port = free_port()
    listens = f"import socket, time\ns = socket.create_server(('127.0.0.1', {port}))\ntime.sleep(600)\n"
    (tmp_path / "waits.py").write_text(listens)
    (tmp_path / "wrong.py").write_text("import sys\nprint('view: change it')\nsys.exit(2)\n")
    said: list[str] = []
    async with _restarting(tmp_path, said, _program("wrong"), _program("waits", port)) as supervisor:
        assert supervisor.ended == ["wrong"]
        assert not supervisor.failed.done()
        (tmp_path / "wrong.py").write_text("import time\nprint('right', flush=True)\ntime.sleep(600)\n")
        supervisor.restart("wrong")
        await until(lambda: said[-1].endswith("right"))
        assert not supervisor.ended
    assert [each.rpartition("│ ")[2] for each in said] == [
        "view: change it",
        "does not run like this; it starts again when a file changes",
        "right",
    ]


async def test_a_program_that_crashes_again_and_again_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again all the same; what comes of it is told where it is something else, or a file has changed."""
    monkeypatch.setattr(supervisor, "_LAST_UNCHANGED_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "_HELD_SECONDS", 600.0)
    tries = "import pathlib\nwith pathlib.Path('tries').open('a') as file:\n    file.write('.')\n"
    program = tmp_path / "crashes.py"
    said: list[str] = []

    noted = tmp_path / "tries"
    noted.touch()

    async def tried(more: int) -> None:
        before = noted.stat().st_size
        await until(lambda: noted.stat().st_size >= before + more)

    def write(last: str) -> None:
        (tmp_path / "new.py").write_text(f"{tries}raise SystemExit('{last}')\n")
        (tmp_path / "new.py").replace(program)

    write("one")
    async with _restarting(tmp_path, said, _program("crashes")):
        await tried(3)
        # Of another length: what was written in the same second and is as long, Python takes for compiled already.
        write("another")
        await until(lambda: len(said) >= 4)
        await tried(3)
    assert [each.rpartition("│ ")[2].partition(";")[0] for each in said] == [
        "one",
        "ended with 1",
        "another",
        "ended with 1",
    ]


async def test_a_program_that_ran_for_long_says_how_it_ended_whatever_it_said_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_STABLE_SECONDS", 0.0)
    (tmp_path / "crashes.py").write_text("raise SystemExit('one')\n")
    said: list[str] = []
    async with _restarting(tmp_path, said, _program("crashes")):
        await until(lambda: sum("ended with 1" in each for each in said) >= 2)


def test_a_wrong_number_of_orders_is_told_before_the_demo_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("many", "", "0", "-1", "1.5"):
        monkeypatch.setenv("DEMO_ORDERS", wrong)
        with pytest.raises(Misconfigured, match=f"DEMO_ORDERS={wrong} is wrong"):
            orders_of_a_burst()


async def test_a_project_that_cannot_be_imported_begins_once_a_file_has_changed(tmp_path: Path) -> None:
    """In another program of the same process, and what is wrong then is told in its turn."""
    table = "[tool.twinlog.services]\nhotel_svc = '127.0.0.1:1'\n"
    (tmp_path / "pyproject.toml").write_text(table)
    (tmp_path / "hotel_svc").mkdir()
    app = tmp_path / "hotel_svc" / "app.py"
    app.write_text("import nowhere\n")
    dev = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "twinlog", "dev"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert dev.stdout
    try:
        async with asyncio.timeout(180):
            assert b"No module named 'nowhere'" in await dev.stdout.readline()
            assert b"it starts when a file changes" in await dev.stdout.readline()
            answer = asyncio.ensure_future(dev.stdout.readline())
            while not answer.done():  # a change is noticed once somebody looks
                (tmp_path / "new").write_text("import elsewhere\n")
                (tmp_path / "new").replace(app)
                await asyncio.wait([answer], timeout=0.5)
            assert b"No module named 'elsewhere'" in await answer
            assert b"it starts when a file changes" in await dev.stdout.readline()
    finally:
        if dev.returncode is None:
            dev.kill()
        await dev.wait()
