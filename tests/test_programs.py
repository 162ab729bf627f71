"""Who waits for a program, or for anything while a task works, learns what has gone wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests import preloaded
from tests.forks import forks
from tests.programs import Program, program
from tests.waiting import Ended, beside, until

_SAYS_AND_ENDS = "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"


async def test_a_wait_ends_with_the_program_and_tells_its_last_words(tmp_path: Path) -> None:
    async def waited(running: Program, kind: str) -> None:
        match kind:
            case "words":
                await running.says("three")
            case "server":
                await running.serves("127.0.0.1:1")
            case _:
                await running.until(lambda: False)

    for kind in ("words", "server", "condition"):
        async with program(sys.executable, "-uc", _SAYS_AND_ENDS, env=os.environ, cwd=tmp_path) as running:
            with pytest.raises(Ended) as told:
                await waited(running, kind)
        assert str(told.value) == "it ended with 3, and said:\none\ntwo\n", kind


async def test_what_it_said_before_it_ended_counts(tmp_path: Path) -> None:
    async with program(sys.executable, "-uc", _SAYS_AND_ENDS, env=os.environ, cwd=tmp_path) as running:
        assert await running.ended() == 3
        await running.says("two")
        assert running.said == "one\ntwo\n"


async def test_a_wait_for_what_forks_do_ends_with_one_of_them(tmp_path: Path) -> None:
    async with forks("tests.forks_that_end") as running:
        pid = await running.start()
        with pytest.raises(Ended, match=rf"these have ended: \[{pid}\]"):
            await running.until(lambda: False)
        assert await running.ended(pid) == 0


async def test_a_wait_that_is_too_long_tells_which_tasks_have_failed_meanwhile() -> None:
    async def fails() -> None:
        raise LookupError("nothing is there")

    task = asyncio.create_task(fails(), name="looking")
    with pytest.raises(TimeoutError, match=r"did not hold in 0.1 s; task looking failed: LookupError\('noth"):
        await until(lambda: False, seconds=0.1)
    with pytest.raises(LookupError):
        await task


async def test_a_wait_beside_a_task_ends_with_it() -> None:
    async def fails() -> None:
        raise LookupError("nothing is there")

    async def ends() -> str:
        return "all of it"

    with pytest.raises(LookupError):
        await beside(asyncio.create_task(fails()), asyncio.Event().wait())
    with pytest.raises(Ended, match="task serving has ended: 'all of it'"):
        await beside(asyncio.create_task(ends(), name="serving"), asyncio.Event().wait())
    working = asyncio.create_task(asyncio.sleep(600))
    assert await beside(working, ends()) == "all of it"
    working.cancel()


_TELLS = """
import os, sys
says = os.environ["SAYS"], os.getcwd(), sys.path[0], os.getsid(0) == os.getpid(), os.read(0, 1)
print(says, "shop" in sys.modules)
sys.exit(7)
"""


async def test_what_begins_with_the_library_imported_is_as_any_other_child(tmp_path: Path) -> None:
    """Its module is run with its own environment, in its folder, in a session of its own, and it knows no domain."""
    (tmp_path / "tells.py").write_text(_TELLS)
    env = {**os.environ, "SAYS": "hello"}
    code, out, err = await preloaded.run("tells", env=env, cwd=tmp_path)
    assert (code, err) == (7, "")
    assert out.strip() == f"{('hello', str(tmp_path), str(tmp_path), True, b'')} False"
    code, _, err = await preloaded.run("no_such_module", cwd=tmp_path)
    assert code == 1 and "No module named no_such_module" in err


async def test_what_begins_with_the_library_imported_can_be_killed(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import time\nprint('begins', flush=True)\ntime.sleep(10_000)")
    process = await preloaded.start("hangs", cwd=tmp_path)
    assert process.stdout and await process.stdout.readline() == b"begins\n"
    process.kill()
    assert (await process.communicate(), process.returncode) == ((b"", b""), -signal.SIGKILL)
