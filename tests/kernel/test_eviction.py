"""What is remembered has a bound: beyond it, what was used least recently is forgotten, and read again when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from tests.dead_letters.journal import Source, dead_lettering
from tests.kernel.counter import COUNTER
from tests.kernel.test_writer import add
from twinlog import Projection, Schema, StreamId, Writer
from twinlog.consume import projection
from twinlog.log import snapshots as snapshots_module
from twinlog.log.ports import ReadRequest, Snapshot, StreamSlice
from twinlog.log.snapshots import Snapshots
from twinlog.log.transaction import Entry
from twinlog.testing import MemoryLog, MemoryViews
from twinlog.testing.internals import AnyView, RandomIds, StateCodec, SystemClock

LIMIT = 3


class Noted(MemoryLog):
    """Notes which streams are read."""

    def __init__(self) -> None:
        super().__init__("counters")
        self.loaded: list[str] = []

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        self.loaded += [want.stream.id for want in wanted]
        return await super().load(wanted)


@pytest.fixture
def log() -> Noted:
    return Noted()


@pytest.fixture
def writer(log: Noted) -> Writer:
    return Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds(), cached_streams=LIMIT)


async def test_a_writer_remembers_so_many_streams_and_forgets_the_least_recently_used(
    log: Noted, writer: Writer
) -> None:
    async with writer:
        for id in "abc":
            await writer.execute(add(1, id))
        assert log.loaded == ["a", "b", "c"]
        await writer.execute(add(1, "a"))  # now b is the least recently used
        await writer.execute(add(1, "d"))
        log.loaded.clear()
        for id in "acd":
            await writer.execute(add(0, id))
        assert log.loaded == [], "three are remembered"
        assert (await writer.execute(add(1, "b"))).result.value == 2
        assert log.loaded == ["b"]
        assert (await writer.execute(add(1, "a"))).result.value == 3
        assert log.loaded == ["b", "a"]


async def test_a_batch_may_need_more_streams_than_are_remembered(log: Noted, writer: Writer) -> None:
    many = [str(number) for number in range(3 * LIMIT)]
    async with writer:
        for expected in (1, 2):
            outcome = await writer.execute(lambda tx: [add(1, id)(tx).value for id in many])
            assert outcome.result == [expected] * len(many)
        log.loaded.clear()
        await writer.execute(lambda tx: [add(0, id)(tx) for id in many])
    assert len(log.loaded) == len(many) - LIMIT


class NotedViews(MemoryViews):
    """Notes which rows are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up: list[str] = []

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        self.looked_up += keys
        return await super().rows(view, keys)


async def test_a_projection_remembers_so_many_rows_and_folds_the_others_from_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(projection, "_CACHED_ROWS", LIMIT)
    source, views = Source(), NotedViews()
    consumer = dead_lettering(Projection("tests.source", [source.view()], views, schema=Schema()), views.log)
    at = 0
    for text in ("a:1", "b:1", "c:1"):
        at = await consumer.handle(source.add(text), at)
    assert views.looked_up == ["a", "b", "c"]
    views.looked_up.clear()
    at = await consumer.handle(source.add("a:2", "b:2", "c:2"), at)
    assert views.looked_up == [], "three are remembered"
    at = await consumer.handle(source.add(*[f"{key}:3" for key in "defghij"]), at)
    views.looked_up.clear()
    at = await consumer.handle(source.add(*[f"{key}:4" for key in "abcdefghij"]), at)
    assert views.looked_up == [*"abcdefg"], "the last three are remembered"
    assert {key: row.written for key, row in views.tables["journal"].items()} == {
        **dict.fromkeys("abc", "1 2 4"),
        **dict.fromkeys("defghij", "3 4"),
    }


async def test_snapshots_remember_the_sizes_of_so_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "_REMEMBERED_SIZES", LIMIT)
    monkeypatch.setattr(snapshots_module, "_BYTES_PER_EVENT", 1)
    snapshots, codec = Snapshots(MemoryLog("counters"), every=1), StateCodec(COUNTER)
    state = codec.encode(COUNTER.fold([Int64Value(value=10**12)]))
    streams = [StreamId("counter", str(number)) for number in range(LIMIT + 1)]
    for stream in streams:
        snapshots.restore(COUNTER, Snapshot(stream, 1, 1, codec.schema, state))
    entry = Entry(COUNTER, codec.decode(state), 3, 3, 1)
    due = [stream in snapshots.offer_all({stream: entry}) for stream in streams]
    assert due == [True, False, False, False], "a large state is saved less often, while its size is known"
