"""Leases whose rows a clock that was ahead has written, and leases that do not end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast

import pytest
from structlog.testing import capture_logs

from tests.virtual_time import simulated
from tests.waiting import until
from twinlog.postgres.lease import PostgresLease
from twinlog.testing.internals import PostgresLog, open_log

SECONDS = 0.6


@pytest.fixture
async def log(postgres_url: str, database: str) -> AsyncIterator[PostgresLog]:
    async with open_log(postgres_url, database, "own") as log:
        yield log


async def write(log: PostgresLog, holder: str, ends_in: str) -> None:
    """Sets the row of the lease by hand."""
    await log.pool.execute(
        "INSERT INTO leases VALUES ('work', $1, clock_timestamp() + $2::text::interval) "
        "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at",
        holder,
        ends_in,
    )


async def holder(log: PostgresLog) -> str:
    return str(await log.pool.fetchval("SELECT holder FROM leases WHERE name = 'work'"))


@asynccontextmanager
async def holding(lease: PostgresLease) -> AsyncIterator[asyncio.Event]:
    """Waits for the lease, or holds it, for the block; the event says that it has it."""
    has_it = asyncio.Event()

    async def work() -> None:
        has_it.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(lease.hold(work))
    try:
        yield has_it
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("ends_in", ["1 hour", "11 minutes", "infinity", "-1 second"])
async def test_a_lease_that_reaches_further_than_its_length_is_void(log: PostgresLog, ends_in: str) -> None:
    if ends_in == "infinity":
        await log.pool.execute("INSERT INTO leases VALUES ('work', 'killed', 'infinity')")
    else:
        await write(log, "killed", ends_in)
    async with holding(PostgresLease(log.pool, "work", "me", seconds=600.0)) as has_it:
        async with asyncio.timeout(60):  # less than the ten minutes of a lease that is valid
            await has_it.wait()
        assert await holder(log) == "me"


async def test_a_lease_within_its_length_is_waited_for(log: PostgresLog) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await write(log, "killed", "4 seconds")
    async with holding(PostgresLease(log.pool, "work", "me")) as has_it:
        async with asyncio.timeout(60):
            await has_it.wait()
    assert loop.time() - began > 3


class Row(NamedTuple):
    """What a replica is told when it asks for the lease."""

    holder: str
    expires_at: float
    mine: bool

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else tuple(self)[key]


class HeldByOne(PostgresLease):
    """A lease that somebody else renews in time, however slow the machine is."""

    async def _ask(self, query: str, *arguments: float) -> Sequence[Any]:
        now = asyncio.get_running_loop().time()
        return [Row("one", now + SECONDS, mine=False)] if query == "take_lease" else []


def test_who_stands_by_for_longer_than_the_length_says_so_once_and_is_healthy() -> None:
    async def stands_by() -> None:
        standby = HeldByOne(cast(Any, None), "work", "two", seconds=SECONDS)
        with capture_logs() as said:
            async with holding(standby):
                await asyncio.sleep(20 * SECONDS)
                assert standby.problem is None
        assert said == [{"event": "lease.waiting", "lease": "work", "holder": "one", "log_level": "info"}]

    simulated(stands_by())


async def test_a_lease_that_the_database_refuses_shows_and_ends_no_work(log: PostgresLog) -> None:
    """Somebody has added a constraint: that is no reason to end the process, again and again."""
    lease = PostgresLease(log.pool, "work", "me", seconds=SECONDS)
    async with holding(lease) as has_it:
        await has_it.wait()
        await log.pool.execute("ALTER TABLE leases ADD CONSTRAINT no CHECK (holder <> 'me') NOT VALID")
        await until(lambda: lease.problem is not None)
        assert 'violates check constraint "no"' in str(lease.problem)
        await log.pool.execute("ALTER TABLE leases DROP CONSTRAINT no")
        await until(lambda: lease.problem is None)


async def test_a_lease_that_is_not_renewed_and_does_not_end_is_a_problem(log: PostgresLog) -> None:
    await write(log, "stuck", "0.5 seconds")
    await log.pool.execute(
        """
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE UPDATE ON leases FOR EACH ROW EXECUTE FUNCTION keep();
        """
    )
    lease = PostgresLease(log.pool, "work", "me", seconds=SECONDS)
    with capture_logs() as said:
        async with holding(lease) as has_it:
            await until(lambda: lease.problem is not None)
            problem = str(lease.problem)
            assert "lease work: stuck has not renewed it for 0.6 s, and it does not expire" in problem
            await asyncio.sleep(SECONDS)
            assert [line["event"] for line in said].count("lease.not_renewed") == 1
            await log.pool.execute("DROP TRIGGER keep ON leases")
            await log.pool.execute(problem.partition("free it: ")[2])
            await has_it.wait()
            assert lease.problem is None
