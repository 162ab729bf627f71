"""Leases whose rows a clock that was ahead has written, and leases that do not end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from tests.virtual_time import simulated
from tests.waiting import until
from twinlog.log.lease import Answer, LeaseRow
from twinlog.memory.lease import MemoryLeases
from twinlog.postgres.lease import PostgresLease, PostgresLeases
from twinlog.testing.internals import PostgresLog, open_log

SECONDS = 0.6
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def log(postgres_url: str, database: str) -> AsyncIterator[PostgresLog]:
    async with open_log(postgres_url, database, "own") as log:
        yield log


async def write(log: PostgresLog, holder: str, ends_in: str) -> None:
    """Sets the row of the lease by hand."""
    await log.pool.execute(
        "INSERT INTO leases VALUES ('work', $1, "
        "CASE $2::text WHEN 'infinity' THEN 'infinity' ELSE clock_timestamp() + $2::text::interval END) "
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


ROWS = {
    ("killed", "1 hour"): True,
    ("killed", "11 minutes"): True,
    ("killed", "infinity"): True,
    ("killed", "-1 second"): True,
    ("killed", "-1 hour"): True,
    ("killed", "9 minutes"): False,
    ("killed", "3 minutes"): False,
    ("me", "1 hour"): True,
    ("me", "9 minutes"): True,
    ("me", "-1 hour"): True,
}
"""By holder and end, from now on, of a lease of ten minutes: whether it is mine once I have asked for it."""
_UNITS = {"hour": 3600, "minutes": 60, "second": 1}


def end_of(now: datetime, ends_in: str) -> datetime:
    """What Postgres makes of it."""
    if ends_in == "infinity":
        return datetime.max.replace(tzinfo=UTC)
    number, unit = ends_in.split()
    return now + timedelta(seconds=int(number) * _UNITS[unit])


def in_memory(held_by: str, ends_in: str) -> MemoryLeases:
    leases = MemoryLeases(lambda: START)
    leases.rows["work"] = LeaseRow(held_by, end_of(START, ends_in))
    return leases


def test_a_lease_that_has_ended_or_reaches_further_than_its_length_is_void() -> None:
    """The rule that the simulator runs."""
    differing = {}
    for (held_by, ends_in), mine in ROWS.items():
        leases = in_memory(held_by, ends_in)
        answer = leases.take("work", "me", 600.0)
        row = leases.rows["work"]
        if answer != Answer(mine, row) or row.holder != ("me" if mine else held_by):
            differing[held_by, ends_in] = answer
    assert not differing


async def test_the_statement_says_the_same(log: PostgresLog) -> None:
    lease, differing = PostgresLease(log.pool, "work", "me"), {}
    for (held_by, ends_in), mine in ROWS.items():
        await write(log, held_by, ends_in)
        answer = await lease.take_row("work", "me", 600.0)
        [stored] = await log.pool.fetch("SELECT holder, expires_at FROM leases WHERE name = 'work'")
        row = LeaseRow(stored["holder"], stored["expires_at"])
        if answer != Answer(mine, row) or row.holder != ("me" if mine else held_by):
            differing[held_by, ends_in] = answer
    assert not differing


async def test_a_lease_is_given_up_by_its_holder_only(log: PostgresLog) -> None:
    for held_by, left in (("me", 0), ("killed", 1)):
        await write(log, held_by, "3 minutes")
        await PostgresLease(log.pool, "work", "me").give_up_row("work", "me")
        leases = in_memory(held_by, "3 minutes")
        leases.give_up("work", "me")
        assert (await log.pool.fetchval("SELECT count(*) FROM leases"), len(leases.rows)) == (left, left)


async def test_a_lease_within_its_length_is_waited_for(log: PostgresLog) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await write(log, "killed", "4 seconds")
    async with holding(PostgresLease(log.pool, "work", "me")) as has_it:
        async with asyncio.timeout(60):
            await has_it.wait()
    assert loop.time() - began > 3


class HeldByOne(PostgresLease):
    """A lease that somebody else renews in time, however slow the machine is."""

    async def take_row(self, name: str, holder: str, seconds: float) -> Answer:
        now = START + timedelta(seconds=asyncio.get_running_loop().time())
        return Answer(False, LeaseRow("one", now + timedelta(seconds=seconds)))

    async def give_up_row(self, name: str, holder: str) -> None:
        pass


def test_who_stands_by_for_longer_than_the_length_says_so_once_and_is_healthy() -> None:
    async def stands_by() -> None:
        standby = HeldByOne(cast(Any, None), "work", "two", seconds=SECONDS)
        with capture_logs() as said:
            async with holding(standby):
                await asyncio.sleep(20 * SECONDS)
                assert standby.problem is None
        assert said == [{"event": "lease.waiting", "lease": "work", "holder": "one", "log_level": "info"}]

    simulated(stands_by())


class Locked(PostgresLease):
    """A lease in a table that somebody locks."""

    def __init__(self) -> None:
        super().__init__(cast(Any, None), "work", "me", seconds=SECONDS)
        self.free = asyncio.Event()
        self.free.set()

    async def take_row(self, name: str, holder: str, seconds: float) -> Answer:
        await self.free.wait()
        return Answer(True, LeaseRow("me", START))

    async def give_up_row(self, name: str, holder: str) -> None:
        pass


def test_a_lease_without_an_answer_for_its_length_says_so_once_and_ends_no_work() -> None:
    async def waits() -> None:
        lease = Locked()
        with capture_logs() as said:
            async with holding(lease) as has_it:
                await has_it.wait()
                lease.free.clear()
                await asyncio.sleep(SECONDS)
                assert lease.problem is None
                await asyncio.sleep(20 * SECONDS)
                assert str(lease.problem).startswith(
                    "lease work: no answer for 0.6 s; somebody may hold a lock"
                )
                lease.free.set()
                await asyncio.sleep(0)
                await until(lambda: lease.problem is None)
        assert [line["event"] for line in said] == ["lease.unconfirmed", "lease.confirmed"]

    simulated(waits())


class Slow(PostgresLease):
    """A lease whose renewals reach the database late."""

    def __init__(self, leases: MemoryLeases, *, at_once: bool = False) -> None:
        """``at_once``: the first question reaches it late, too."""
        super().__init__(cast(Any, None), "work", "me", seconds=SECONDS)
        self._leases = leases
        self.at_once = at_once
        self.in_flight, self.arrives = asyncio.Event(), asyncio.Event()

    async def take_row(self, name: str, holder: str, seconds: float) -> Answer:
        if self.mine or self.at_once:
            self.in_flight.set()
            await self.arrives.wait()
        return self._leases.take(name, holder, seconds)

    async def give_up_row(self, name: str, holder: str) -> None:
        self._leases.give_up(name, holder)


@pytest.mark.parametrize("late_by", [0.1, 5.0])
@pytest.mark.parametrize("at_once", [True, False], ids=["while it is taken", "while it is renewed"])
def test_a_question_in_flight_leaves_no_lease_to_who_stops(late_by: float, at_once: bool) -> None:
    async def gives_up() -> None:
        leases = MemoryLeases(lambda: START)
        lease = Slow(leases, at_once=at_once)
        async with holding(lease):
            await lease.in_flight.wait()
            asyncio.get_running_loop().call_later(late_by, lease.arrives.set)
        await asyncio.sleep(2 * late_by)
        assert not leases.rows

    simulated(gives_up())


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


@pytest.mark.parametrize(("connections", "theirs"), [(2, 1), (5, 2), (10, 5)])
async def test_leases_of_a_process_leave_half_of_the_connections_to_commands(
    monkeypatch: pytest.MonkeyPatch, connections: int, theirs: int
) -> None:
    """Also while their table is locked."""
    asking, most = 0, Counter[str]()

    async def asked(what: str) -> None:
        nonlocal asking
        asking += 1
        most[what] = max(most[what], asking)
        for _ in range(10):
            await asyncio.sleep(0)
        asking -= 1

    async def take_row(_lease: PostgresLease, _name: str, _holder: str, _seconds: float) -> Answer:
        await asked("take")
        return Answer(True, None)

    async def give_up_row(_lease: PostgresLease, _name: str, _holder: str) -> None:
        await asked("give up")

    monkeypatch.setattr(PostgresLease, "take_row", take_row)
    monkeypatch.setattr(PostgresLease, "give_up_row", give_up_row)
    pool = Mock(get_max_size=Mock(return_value=connections))
    leases, all_have_it = PostgresLeases(pool, lambda: "me"), asyncio.Barrier(9)

    async def held(name: str) -> None:
        async with holding(leases(name)) as has_it:
            await has_it.wait()
            await all_have_it.wait()

    async with asyncio.TaskGroup() as group:
        for each in range(9):
            group.create_task(held(f"work {each}"))
    assert most == {"take": theirs, "give up": theirs}


async def test_a_lease_whose_row_is_locked_holds_up_no_other_of_its_process(log: PostgresLog) -> None:
    """As by somebody who deletes it, and does not commit."""
    leases = PostgresLeases(log.pool, lambda: "me")
    await write(log, "killed", "-1 hour")
    async with log.pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("DELETE FROM leases WHERE name = 'work'")
        async with holding(leases("work")) as locked, holding(leases("other")) as has_other:
            await asyncio.wait_for(has_other.wait(), 30)
            assert not locked.is_set()
            await transaction.rollback()
            await asyncio.wait_for(locked.wait(), 30)


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
