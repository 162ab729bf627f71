"""Whatever is killed while a build is filled, switched to or dropped: it goes on, or is gone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import grpc.aio
import psutil
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from stack.topology import ROOT
from tests.programs import Program, program
from tests.rebuild.conftest import PATIENCE, Stays, serving
from tests.rebuild.program import PACKAGE, SPEC
from tests.waiting import until
from twinlog import Metadata, StreamId
from twinlog.audit.project import open_auditor
from twinlog.dev import free_port
from twinlog.testing.internals import Batch, NewEvent, RandomIds, database_url, named, open_log
from twinlog.v1 import view_service_pb2 as pb
from twinlog.v1.view_service_pb2_grpc import ViewServiceStub

EVENTS = 2_000
"""Two chunks: what fills a build rests after the first."""
_AT_ONCE = 1_000


async def grow(postgres_url: str, namespace: str, events: int = EVENTS) -> None:
    """A log of stays, each with two events, straight into the database."""
    ids = RandomIds()
    async with open_log(postgres_url, named(namespace, SPEC.database), SPEC.log, PACKAGE, size=1) as log:
        for _ in range(events // _AT_ONCE):
            streams = [StreamId("stay", str(ids.uuid7())) for _ in range(_AT_ONCE // 2)]
            new = [
                NewEvent.of(stream, version, ids.uuid7(), StringValue(value=stream.id), Metadata(), stream.id)
                for stream in streams
                for version in (1, 2)
            ]
            await log.append(Batch(datetime.now(UTC), dict.fromkeys(streams, 0), new))


class Process:
    """The service as a process of its own."""

    def __init__(self, program: Program, address: str) -> None:
        self._program = program
        self.address = address

    async def kill(self) -> None:
        """With no chance to tidy up; returns once Postgres has ended what the process had begun, or done it."""
        process = self._program.process
        if process.returncode is None:
            process.send_signal(signal.SIGSTOP)
            ports = [each.laddr.port for each in psutil.Process(process.pid).net_connections("tcp")]
            process.send_signal(signal.SIGKILL)
            await process.wait()
            connection = await asyncpg.connect(os.environ["POSTGRES_URL"], database="postgres")
            try:
                await until(lambda: _no_session_from(ports, connection))
            finally:
                await connection.close()


async def _no_session_from(ports: Sequence[int], connection: asyncpg.Connection) -> bool:
    held = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE client_port = ANY ($1::int[]))"
    return not await connection.fetchval(held, ports)


@asynccontextmanager
async def process() -> AsyncIterator[Process]:
    """A process, once it listens, that is killed at the end at the latest."""
    address = f"127.0.0.1:{free_port()}"
    env = {**os.environ, "STAYS_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    async with program(sys.executable, "-m", "tests.rebuild.program", env=env, cwd=ROOT) as started:
        made = Process(started, address)
        try:
            await started.listens(address)
            yield made
        finally:
            await made.kill()


@pytest.fixture
async def database(postgres_url: str, namespace: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own to a database with a grown log."""
    await grow(postgres_url, namespace)
    connection = await asyncpg.connect(database_url(postgres_url, named(namespace, SPEC.database)))
    yield connection
    await connection.close()


async def asked(address: str, method: str, request: Any) -> Any:
    """The answer of a call of its own connection."""
    async with grpc.aio.insecure_channel(address) as channel:
        return await getattr(ViewServiceStub(channel), method)(request, timeout=PATIENCE, wait_for_ready=True)


async def filled_so_far(database: asyncpg.Connection) -> int:
    found = await database.fetchval(
        "SELECT position FROM checkpoints WHERE consumer = 'stays_svc.stays@2.stays'"
    )
    return int(found or 0)


@asynccontextmanager
async def held_up(database: asyncpg.Connection) -> AsyncIterator[None]:
    """A build comes no further than to its first chunk inside the block, however long that takes."""
    await database.execute(
        f"""
        CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN RAISE 'it is held up' USING ERRCODE = 'lock_not_available'; END $$;
        CREATE TRIGGER hold_up BEFORE INSERT OR UPDATE ON checkpoints FOR EACH ROW
            WHEN (new.consumer LIKE '%@2%' AND new.position >= {EVENTS}) EXECUTE FUNCTION hold_up();
        """
    )
    yield
    await database.execute("DROP TRIGGER hold_up ON checkpoints; DROP FUNCTION hold_up()")


async def test_a_build_goes_on_where_it_was_when_its_process_is_killed(
    database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process() as killed:
        async with held_up(database):
            request = pb.RebuildViewRequest(view="stays")
            await asked(killed.address, "RebuildView", request)
            await until(lambda: _is_under_way(database))
            await killed.kill()
        before = await filled_so_far(database)
        assert 0 < before < EVENTS
        async with serving(monkeypatch) as stays:
            assert await filled_so_far(database) >= before
            await stays.ready(2)
            same = await stays.compared()
            assert (same.compared, same.changed, same.missing, same.added) == (EVENTS // 2, 0, 0, 0)
            await stays.switch()
            await stays.write("bob")
            await _audited(stays)


async def _is_under_way(database: asyncpg.Connection) -> bool:
    return await filled_so_far(database) > 0


async def _audited(stays: Stays) -> None:
    """Every build is what its events lead to."""
    from tests.rebuild.program import main

    async with open_auditor({"tests.rebuild.program": main}) as auditor:
        report = await auditor.until_settled(PATIENCE)
    assert (report.violations, report.in_flight) == ([], [])


async def test_a_build_that_was_interrupted_is_dropped_clean(
    database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with process() as killed, held_up(database):
        await asked(killed.address, "RebuildView", pb.RebuildViewRequest(view="stays"))
        await until(lambda: _is_under_way(database))
        await killed.kill()
    async with serving(monkeypatch) as stays:
        await stays.drop(2)
        left = await database.fetch(
            "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'stays@%' "
            "UNION ALL SELECT consumer FROM checkpoints WHERE consumer LIKE '%@%'"
        )
        assert left == []
        await stays.switch(await stays.rebuilt())
        await _audited(stays)


async def test_sessions_that_are_ended_in_the_middle_only_delay_it(
    database: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(monkeypatch) as stays:
        await stays.stub.RebuildView(pb.RebuildViewRequest(view="stays", share=5), timeout=PATIENCE)
        await until(lambda: _is_under_way(database))
        await database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await stays.ready(2)
        assert (await stays.compared()).changed == 0
        await _audited(stays)
