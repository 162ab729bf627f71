"""What came without a link is sealed later, and a repair says where it cut the log; in memory as in Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests import servers
from tests.chain.history import Messages, verified
from tests.kernel.batches import NOW, append, batch, counter, grow, recorded
from twinlog import Log, Recorded
from twinlog.log.chain import (
    APPENDED,
    CUT,
    NOTHING_BEFORE,
    SEALED,
    Chained,
    Head,
    event_digests,
    link_hash,
    summed,
)
from twinlog.log.repair import Difference, Plan
from twinlog.log.twin import TwinState
from twinlog.postgres import repair
from twinlog.testing import MemoryLog
from twinlog.testing.internals import PostgresLog, open_log

Covered = list[tuple[int, int, int]]


@pytest.fixture
def chained(log: Log) -> Any:
    assert isinstance(log, Chained)
    return log


async def append_without(log: Any, count: int, id: str = "old") -> None:
    """Appends as a program of an earlier release does."""
    if isinstance(log, MemoryLog):
        linked = list(log.chain), list(log._noted), log._linked
        await grow(log, count, id)
        log.chain, log._noted, log._linked = linked
        return
    made = batch((counter(id), sum(e.stream == counter(id) for e in await log.read(0, 1000)), count))
    query = "SELECT first FROM append_batch($1, $2, $3, $4, $5, $6, NULL, NULL, NULL)"
    rows: tuple[Any, ...] = (list(made.expects.items()), made.events, [], [], [])
    async with log.pool.acquire() as connection:
        await connection.fetchval(query, NOW, *rows)


async def links(log: Any) -> Covered:
    """Kind and positions of each link, all of which follow each other and fit their events, but for what was cut."""
    found, before = [], NOTHING_BEFORE
    everything = await log.links(0, 1000)
    cuts = [link for link in everything if link.kind == CUT]
    assert cuts == await log.cuts()
    for number, link in enumerate(everything, 1):
        assert link.number == number
        assert link.hash == link_hash(before, *link[1:6])
        void = link.kind == CUT or any(cut.number > number and cut.first <= link.last for cut in cuts)
        if not void:
            events = await log.read(link.first - 1, link.last + 1 - link.first)
            assert summed(event_digests(events)) == (link.digest, link.marks)
        before = link.hash
        found.append((link.kind, link.first, link.last))
    assert await log.newest_link() == (everything[-1] if everything else None)
    return found


async def test_a_batch_is_a_link(chained: Any) -> None:
    assert await links(chained) == []
    await grow(chained, 3)
    await append(chained, batch((counter(), 3, 0)))
    await grow(chained, 1)
    assert await links(chained) == [(APPENDED, 1, 3), (APPENDED, 4, 4)]
    assert [link.head for link in await chained.links(0, 10)] == [3, 4]
    assert [link.number for link in await chained.links(1, 10)] == [2]
    assert [link.number for link in await chained.links(0, 1)] == [1]
    assert (await chained.unlinked(), await chained.seal(10)) == ([], 0)


async def test_what_a_program_of_before_appends_is_sealed(chained: Any) -> None:
    await append_without(chained, 5)
    await grow(chained, 1)
    await append_without(chained, 1)
    await append_without(chained, 1)
    assert await links(chained) == [(APPENDED, 6, 6)]
    assert await chained.unlinked() == [(1, 5), (7, 8)]

    assert [await chained.seal(3) for _ in range(4)] == [3, 2, 2, 0]

    sealed = [(SEALED, 1, 3), (SEALED, 4, 5), (SEALED, 7, 8)]
    assert await links(chained) == [(APPENDED, 6, 6), *sealed]
    assert await chained.unlinked() == []
    await grow(chained, 2)
    assert (await links(chained))[-1] == (APPENDED, 9, 10)
    assert (await verified(chained))[0] is None


async def test_what_waits_to_be_sealed_is_no_difference(chained: Any) -> None:
    await append_without(chained, 2)
    await grow(chained, 2)
    await append_without(chained, 2)
    assert (await verified(chained))[0] is None


async def test_events_that_are_not_there_are_not_sealed(postgres_log: PostgresLog) -> None:
    await append_without(postgres_log, 3)
    async with postgres_log.pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM events WHERE position = 2")
    assert await postgres_log.seal(10) == 0
    assert await postgres_log.unlinked() == [(1, 3)]


async def repaired(log: Any, theirs: Sequence[Recorded]) -> None:
    """Puts back what the stream has from a position on."""
    since = theirs[0].position
    if isinstance(log, MemoryLog):
        log.repair(Plan(since, theirs, [], await log.read(since - 1, 1000), {}, {}))
    else:
        (shared,) = await log.read(since - 2, 1)
        await repair.carry_out(
            log, Difference(TwinState(1, theirs[-1].position, 0), since, theirs, shared, "")
        )


async def test_a_repair_says_where_it_cut_the_log(chained: Any) -> None:
    await grow(chained, 2)
    await grow(chained, 3)
    noted = [Head.of("counters", link) for link in await chained.links(0, 10)]
    ours = await chained.read(3, 1)
    theirs = recorded("counters", 6, after=3)
    assert ours != theirs[:1]
    await repaired(chained, theirs)

    assert (await links(chained))[2:] == [(CUT, 3, 5)]
    assert await chained.unlinked() == [(3, 9)]
    assert await chained.seal(100) == 7
    assert (await links(chained))[3:] == [(SEALED, 3, 9)]
    await grow(chained, 1, "b")
    first, found = await verified(chained)
    assert first is None
    assert "counters: a repair changed the log from event 3 on, by link 3" in found.notes
    assert (await verified(chained, None, noted[0]))[0] is None
    assert (await verified(chained, None, noted[1]))[0] == 4


async def test_a_repair_of_what_has_no_link_cuts_what_waits(chained: Any) -> None:
    await grow(chained, 2)
    await append_without(chained, 4, "b")
    await repaired(chained, [e._replace(version=e.position - 2) for e in recorded("counters", 2, after=4)])
    assert await links(chained) == [(APPENDED, 1, 2), (CUT, 3, 6)]
    assert [each.first for each in await chained.unlinked()] == [3]
    while await chained.seal(3):
        pass
    assert (await verified(chained))[0] is None


async def test_both_adapters_make_the_same_chain(postgres_url: str) -> None:
    memory = MemoryLog("counters")
    async with (
        servers.database(postgres_url) as database,
        open_log(postgres_url, database, "counters") as log,
    ):
        for made in (batch((counter(), 0, 2)), batch((counter(), 2, 1), (counter("b"), 0, 1))):
            await append(memory, made)
            await append(log, made)
        assert await log.links(0, 10) == await memory.links(0, 10)
        twin = Messages()
        twin.store(await memory.read(0, 10))
        assert (await verified(log, twin))[0] is None
