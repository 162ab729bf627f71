"""The fixtures that the tests against real servers rest on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from nats.js.errors import NotFoundError

from tests import servers
from twinlog.dev import EmbeddedNats, EmbeddedPostgres
from twinlog.dev.process import end_leftover
from twinlog.jetstream import connection as jetstream
from twinlog.testing.internals import JetStreamTwin, NatsClient, database_url
from twinlog.testing.servers import _delete_leftovers


async def test_a_database_is_gone_after_its_block(postgres_url: str) -> None:
    async with servers.database(postgres_url) as name:
        await servers.execute(postgres_url, "CREATE TABLE mine ()", name)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await servers.execute(postgres_url, "SELECT 1", name)


async def test_a_stream_is_gone_after_its_block(nats: NatsClient) -> None:
    async with servers.stream(nats) as name:
        await JetStreamTwin(nats, name).create(1)
        assert (await nats.jsm().stream_info(name)).config.allow_direct
    with pytest.raises(NotFoundError):
        await nats.jsm().stream_info(name)


async def test_postgres_keeps_what_was_committed_over_a_kill(own_postgres: EmbeddedPostgres) -> None:
    await servers.execute(own_postgres.url, "CREATE TABLE mine ()")
    await own_postgres.kill()
    with pytest.raises(OSError):
        await asyncpg.connect(database_url(own_postgres.url, "postgres"))
    await own_postgres.start()
    await servers.execute(own_postgres.url, "SELECT FROM mine")


async def test_nats_keeps_its_streams_over_a_kill(own_nats: EmbeddedNats) -> None:
    client = await jetstream.connect(own_nats.url, "tests")
    try:
        twin = JetStreamTwin(client, "kept")
        await twin.create(5)
        await own_nats.kill()
        await own_nats.start()
        await client.flush(30)
        assert (await twin.state()).last == 4
    finally:
        await jetstream.close(client)


async def test_each_postgres_is_another_one_whose_data_come_from_it_alone() -> None:
    """Their data are copies, but for the first: who is who is told by an identifier of each."""
    found = set()
    for _ in range(2):
        async with servers.postgres_server() as server:
            await servers.execute(server.url, "CREATE TABLE mine ()")  # which none of them has yet
            connection = await asyncpg.connect(database_url(server.url, "postgres"))
            found.add(await connection.fetchval("SELECT system_identifier FROM pg_control_system()"))
            await connection.close()
    assert len(found) == 2


def test_what_a_killed_run_left_is_deleted_and_nobody_elses(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    for name in (
        left := f"twinlog-test-{ended.pid}-a",
        mine := f"twinlog-test-{os.getpid()}-b",
        "twinlog-test-c",
    ):
        (tmp_path / name / "pg").mkdir(parents=True)
    _delete_leftovers(tmp_path)
    assert not (tmp_path / left).exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == [mine, "twinlog-test-c"]


def test_what_a_killed_run_left_is_ended_whatever_its_file_says(tmp_path: Path) -> None:
    """Ctrl-C at a first start leaves a Postgres of one user, whose id has a minus; each later start reads the file."""
    file, sign = tmp_path / "postmaster.pid", str(tmp_path / "data")
    for wrong in ("", "x", "0", f"-{2**22 + 1}", str(10**30)):
        file.write_text(f"{wrong}\n")
        end_leftover(file, sign, signal.SIGINT)
    waits = [sys.executable, "-c", "print(flush=True); input()", sign]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as left:
        assert left.stdout
        left.stdout.readline()  # a process that has just begun has no command line for a moment
        file.write_text(f"-{left.pid}\n{sign}\n")
        end_leftover(file, sign, signal.SIGKILL)
        assert left.wait(60) == -signal.SIGKILL
