"""Kept snapshots over the log's adapters: made by writers, by who reads the past, and by rebuilds; never trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.kernel.counter import COUNTER, Add, Count
from tests.waiting import until
from twinlog import Aggregate, Log, Metadata, Schema, StreamId, Transaction, Unavailable, Writer
from twinlog.log import kept_snapshots
from twinlog.log.kept_snapshots import drop_surplus, stride
from twinlog.log.past import KeepsSnapshots, KeptKey, KeptSnapshot, Moment
from twinlog.log.ports import ReadRequest, Snapshot, StreamSlice
from twinlog.log.time_travel import StillFolding, TimeTravel
from twinlog.log.transaction import Entry
from twinlog.memory.log import MemoryLog
from twinlog.model.event import NewEvent
from twinlog.testing.internals import Batch, RandomIds, StateCodec, SystemClock

STREAM = StreamId(COUNTER.name, "a")
EVERY_100 = replace(COUNTER, keep_every=100)
SCHEMA = StateCodec(COUNTER).schema


class Watched:
    """A log that counts the events it loads."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.loaded = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        histories = await self._log.load(wanted)
        self.loaded += sum(len(history.events) for history in histories)
        return histories


async def filled(log: Log, count: int, *, after: int = 0, id: str = STREAM.id) -> None:
    """So many events of the counter, each adding 1."""
    clock, ids, stream = SystemClock(), RandomIds(), StreamId(COUNTER.name, id)
    [message] = COUNTER.decide(Count(), Add(1))
    events = [
        NewEvent.of(stream, version, ids.uuid7(), message, Metadata(), "one")
        for version in range(after + 1, after + count + 1)
    ]
    await log.append(Batch(clock.now(), {stream: after}, events))


def store(log: Log) -> KeepsSnapshots:
    assert isinstance(log, KeepsSnapshots)
    return log


async def kept(log: Log) -> Sequence[KeptSnapshot]:
    return await store(log).kept(*STREAM, KeptKey(), 1_000)


async def versions(log: Log) -> list[int]:
    return [each.version for each in await kept(log)]


async def state(log: Log, version: int, aggregate: Aggregate[Count, Add] = EVERY_100) -> Count:
    found = await TimeTravel(log, Schema()).state(aggregate, STREAM.id, Moment(version))
    assert isinstance(found, Entry)
    assert found.version == version
    counted: Count = found.state
    return counted


def writer(log: Log) -> Writer:
    return Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds())


def add(count: int) -> Any:
    def work(tx: Transaction) -> None:
        for _ in range(count):
            tx.do(EVERY_100, STREAM.id, Add(1))

    return work


@pytest.mark.parametrize("steps", [[100, 100], [99, 3, 98], [250, 60]], ids=str)
async def test_a_writer_keeps_one_at_every_so_many_versions(log: Log, steps: Sequence[int]) -> None:
    """Also where one batch goes past several of them."""
    async with writer(log) as writing:
        for step in steps:
            await writing.execute(add(step))
        expected = list(range(100, sum(steps) + 1, 100))

        async def all_kept() -> bool:
            return await versions(log) == expected

        await until(all_kept)
    assert await state(log, 100) == Count(100, 100)
    assert await state(log, sum(steps)) == Count(sum(steps), sum(steps))


async def test_who_does_not_wait_for_a_state_goes_on_from_where_it_was_left() -> None:
    """Also where no snapshot is kept on the way; an earlier moment is none to go on from, and begins anew."""
    log = MemoryLog("counters")
    await filled(log, 250)
    watched = Watched(log)
    travel, aggregate = TimeTravel(cast(Log, watched), Schema()), replace(COUNTER, keep_every=0)

    async def look(version: int, *, waits: bool = False) -> Entry | int:
        long_ago = asyncio.get_running_loop().time() - 1
        try:
            found = await travel.state(
                aggregate, STREAM.id, Moment(version), until=None if waits else long_ago
            )
        except StillFolding as still:
            return still.folded
        assert isinstance(found, Entry)
        return found

    assert [await look(240), await look(240)] == [100, 200]
    assert await look(150) == 100
    last = await look(240)
    assert isinstance(last, Entry)
    assert (last.version, last.state) == (240, Count(240, 240))
    assert await look(200) == 100
    watched.loaded = 0
    assert await look(200, waits=True) == Entry(aggregate, Count(200, 200), 200, 200, 0)
    assert watched.loaded == 100


async def test_any_version_is_read_from_the_one_before_it(log: Log) -> None:
    await filled(log, 950)
    watched = Watched(log)
    reading = cast(Log, watched)
    assert await state(reading, 950) == Count(950, 950)
    assert watched.loaded == 950
    assert await versions(log) == list(range(100, 950, 100)), "kept on the way"
    for version in (950, 100, 99, 599, 1):
        watched.loaded = 0
        assert await state(reading, version) == Count(version, version)
        assert watched.loaded == version % 100


async def test_a_damaged_one_is_passed_over_and_made_anew(log: Log) -> None:
    await filled(log, 350)
    await state(log, 350)
    lie = StateCodec(COUNTER).encode(Count(7, 7))
    for damaged in (b"garbage", b"{}", lie[:-1]):
        await store(log).keep([Snapshot(STREAM, 300, 300, SCHEMA, damaged)])
        with capture_logs() as said:
            assert await state(log, 310) == Count(310, 310)
        assert [line["event"] for line in said] == ["snapshot.ignored"]
        with capture_logs() as said:
            assert await state(log, 310) == Count(310, 310)
        assert not said, "it is sound again"


async def test_one_of_another_schema_is_passed_over_and_made_anew(log: Log) -> None:
    await filled(log, 350)
    await state(log, 350)
    await store(log).keep([Snapshot(STREAM, 300, 300, "of old", b"{}")])
    assert await state(log, 310) == Count(310, 310)
    assert {each.schema for each in await kept(log)} == {SCHEMA}


async def test_one_of_another_history_is_never_used() -> None:
    log = MemoryLog("counters")
    await filled(log, 350)
    await state(log, 350)
    del log.events[250:], log.streams[STREAM][250:]
    await filled(log, 100, after=250)
    watched = Watched(log)
    assert [each.of_this_history for each in await kept(log)] == [True, True, False]
    assert await state(cast(Log, watched), 310) == Count(310, 310)
    assert watched.loaded == 110
    assert [each.of_this_history for each in await kept(log)] == [True, True, True]


async def test_one_whose_event_is_not_there_is_not_kept(log: Log) -> None:
    await filled(log, 50)
    await store(log).keep(
        [Snapshot(STREAM, 100, 100, SCHEMA, b"{}"), Snapshot(STREAM, 50, 49, SCHEMA, b"{}")]
    )
    assert await kept(log) == []


async def test_a_cold_stream_whose_newest_snapshot_is_damaged_is_read_from_a_kept_one(log: Log) -> None:
    await filled(log, 350)
    await state(log, 350)
    await log.save([Snapshot(STREAM, 340, 340, SCHEMA, b"garbage")])
    watched = Watched(log)
    async with writer(cast(Log, watched)) as writing:
        await writing.execute(add(1))
    assert await state(log, 351) == Count(351, 351)
    assert watched.loaded == 10 + 50, "those after the damaged one, and those after the kept one"


async def test_rebuilding_makes_them_anew(log: Log) -> None:
    await filled(log, 350)
    lie = StateCodec(COUNTER).encode(Count(7, 7))
    await store(log).keep([Snapshot(STREAM, version, version, SCHEMA, lie) for version in (100, 150, 200)])
    assert await TimeTravel(log, Schema()).rebuild(EVERY_100, STREAM.id) == Entry(
        EVERY_100, Count(350, 350), 350, 350, 0
    )
    assert await versions(log) == [100, 200, 300]
    assert await state(log, 200) == Count(200, 200)


async def test_they_are_listed_in_pages_and_dropped(log: Log) -> None:
    await filled(log, 350)
    await state(log, 350)
    page = await store(log).kept("", "", KeptKey(*STREAM, 100), 1)
    assert [(each.stream, each.version, each.position) for each in page] == [(STREAM, 200, 200)]
    assert await store(log).kept("other", "", KeptKey(), 10) == []
    assert await store(log).long_streams(COUNTER.name, 350) == ["a"]
    assert await store(log).long_streams(COUNTER.name, 351) == []
    assert await store(log).drop_kept(*STREAM, but_multiples_of=200) == 2
    assert await store(log).drop_kept("other") == 0
    assert await versions(log) == [200]
    assert await store(log).drop_kept(COUNTER.name) == 1
    assert await versions(log) == []


async def test_an_aggregate_that_wants_none_has_none(log: Log) -> None:
    await filled(log, 350)
    assert await state(log, 350, replace(COUNTER, keep_every=0)) == Count(350, 350)
    assert await versions(log) == []


async def test_the_space_of_a_stream_is_bounded(log: Log) -> None:
    """The larger they grow, the fewer stay, evenly spread."""
    size = len(StateCodec(COUNTER).encode(Count(1_000, 1_000)))
    frugal = replace(EVERY_100, keep_bytes=4 * size)
    await filled(log, 1_650)
    assert await state(log, 1_650, frugal) == Count(1_650, 1_650)
    assert await versions(log) == [400, 800, 1_200, 1_600]
    assert sum(each.bytes for each in await kept(log)) <= frugal.keep_bytes
    await store(log).drop_kept(COUNTER.name)
    assert await state(log, 1_650, replace(COUNTER, keep_bytes=1)) == Count(1_650, 1_650)
    assert await versions(log) == []
    assert await state(log, 1_650, EVERY_100) == Count(1_650, 1_650)
    assert len(await versions(log)) == 16


async def test_what_an_earlier_deploy_kept_is_dropped_though_the_stream_grows_no_more(log: Log) -> None:
    """Of each stream, down to what its aggregate keeps today."""
    size = len(StateCodec(COUNTER).encode(Count(1_000, 1_000)))
    await filled(log, 1_650)
    now: list[tuple[Aggregate[Count, Add] | None, list[int]]] = [
        (EVERY_100, [*range(100, 1_650, 100)]),
        (replace(COUNTER, keep_every=300), [300, 600, 900, 1_200, 1_500]),
        (replace(COUNTER, keep_every=100, keep_bytes=4 * size), [400, 800, 1_200, 1_600]),
        (replace(COUNTER, keep_every=300, keep_bytes=2 * size), [600, 1_200]),
        (replace(COUNTER, keep_every=0), []),
        (None, []),
    ]
    for aggregate, left in now:
        await TimeTravel(log, Schema()).rebuild(EVERY_100, STREAM.id)
        declared = {COUNTER.name: aggregate} if aggregate else {}
        assert await drop_surplus(log, declared) == 16 - len(left), left
        assert await versions(log) == left
        assert await drop_surplus(log, declared) == 0, left


async def test_each_stream_is_judged_by_itself_and_across_pages(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_snapshots, "_PAGE", 2)
    for id in ("a", "b", "c"):
        await filled(log, 350, id=id)
        found = await TimeTravel(log, Schema()).state(EVERY_100, id, Moment(350))
        assert isinstance(found, Entry)
    await store(log).drop_kept(COUNTER.name, "b", but_multiples_of=200)
    assert await drop_surplus(log, {COUNTER.name: replace(COUNTER, keep_every=200)}) == 4
    left = await store(log).kept("", "", KeptKey(), 10)
    assert [(each.stream.id, each.version) for each in left] == [("a", 200), ("b", 200), ("c", 200)]


def test_the_stride_doubles_until_all_fit() -> None:
    frugal = replace(EVERY_100, keep_bytes=1_000)
    assert [stride(frugal, 1_000, size) for size in (0, 100, 101, 200, 201, 500, 501, 1_001)] == [
        100, 100, 200, 200, 400, 400, 800, 1_600,
    ]  # fmt: skip


@pytest.mark.parametrize("every", [-1, 1, 99])
def test_too_many_are_refused(every: int) -> None:
    with pytest.raises(ValueError, match=f"keep_every is {every}; give 100 or more, or 0"):
        replace(COUNTER, keep_every=every)


async def test_a_store_that_is_away_does_not_keep_the_past_from_being_read(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_snapshots: Sequence[Snapshot]) -> None:
        raise Unavailable

    await filled(log, 250)
    monkeypatch.setattr(log, "keep", away)
    assert await state(log, 250) == Count(250, 250)
