"""Snapshots over the log's adapters: a cache that spares reading, and that is never trusted over a changed schema."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from tests.kernel.counter import COUNTER, Add, Count
from tests.poison.kinds import poison, unknown_type
from tests.waiting import until
from twinlog import Aggregate, Log, Schema, StreamId, Transaction, Writer
from twinlog.log import snapshots
from twinlog.log.ports import ReadRequest, StreamSlice
from twinlog.log.snapshots import EVERY, Snapshots
from twinlog.log.transaction import Entry
from twinlog.model.errors import StreamUnreadable
from twinlog.testing import MemoryLog
from twinlog.testing.internals import RandomIds, Snapshot, StateCodec, SystemClock

STREAM = StreamId(COUNTER.name, "a")
CODEC = StateCodec(COUNTER)


class Watched:
    """A log that counts the events it loads, and may be slow at saving snapshots."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.loaded = 0
        self.saving, self.saves = asyncio.Event(), asyncio.Event()
        self.saves.set()

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        histories = await self._log.load(wanted)
        self.loaded += sum(len(history.events) for history in histories)
        return histories

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        self.saving.set()
        await self.saves.wait()
        await self._log.save(snapshots)


@pytest.fixture
def watched(log: Log) -> Watched:
    return Watched(log)


def process(log: Watched) -> Writer:
    """A writer that knows nothing yet."""
    return Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds())  # type: ignore[arg-type]


def one_more(tx: Transaction) -> Count:
    return tx.do(COUNTER, STREAM.id, Add(1))


async def count_to(writer: Writer, number: int) -> None:
    await asyncio.gather(*(writer.execute(one_more) for _ in range(number)))


async def kept(log: Watched, schema: str = CODEC.schema) -> Snapshot | None:
    [history] = await log.load([ReadRequest(STREAM, schema=schema)])
    return history.snapshot


async def test_a_large_state_is_encoded_by_another_thread(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_LARGE_BYTES", 1)
    encode, threads = StateCodec.encode, []

    def watched_encode(self: StateCodec, state: object) -> bytes:
        threads.append(threading.current_thread() is threading.main_thread())
        return encode(self, state)

    monkeypatch.setattr(StateCodec, "encode", watched_encode)
    async with process(watched) as writer:
        for version in (EVERY, 2 * EVERY):
            await count_to(writer, EVERY)
            await until(partial(has_one, watched, version))
    assert threads == [True, False], "the first one's size is not known yet"


async def test_the_first_snapshot_of_many_events_is_encoded_by_another_thread(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_MANY_EVENTS", EVERY)
    encode, on_loop = StateCodec.encode, dict[str, bool]()

    def watched_encode(self: StateCodec, state: Count) -> bytes:
        on_loop[f"{state.events} events"] = threading.current_thread() is threading.main_thread()
        return encode(self, state)

    monkeypatch.setattr(StateCodec, "encode", watched_encode)
    saving = Snapshots(log)
    for version in (EVERY, EVERY + 1):
        stream = StreamId(COUNTER.name, f"of-{version}")
        saving.offer_all({stream: Entry(COUNTER, Count(version, version), version, version, 0)})
    task = asyncio.create_task(saving.run())
    await until(lambda: len(on_loop) == 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert on_loop == {f"{EVERY} events": True, f"{EVERY + 1} events": False}


async def has_one(log: Watched, version: int) -> bool:
    snapshot = await kept(log)
    return snapshot is not None and snapshot.version == version


async def test_a_cold_stream_is_read_from_its_snapshot(watched: Watched) -> None:
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        await until(lambda: has_one(watched, EVERY))
        await count_to(writer, 7)
    watched.loaded = 0
    async with process(watched) as cold:
        assert (await cold.execute(one_more)).result == Count(EVERY + 8, EVERY + 8)
    assert watched.loaded == 7


async def test_a_snapshot_of_another_schema_is_ignored_and_written_again(watched: Watched) -> None:
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        await until(lambda: has_one(watched, EVERY))
    lie = CODEC.encode(Count(1_000, 1_000))
    await watched.save([Snapshot(STREAM, EVERY, EVERY, "of old", lie)])
    assert await kept(watched) is None
    assert await kept(watched, "of old") is not None

    async with process(watched) as cold:
        assert (await cold.execute(one_more)).result == Count(EVERY + 1, EVERY + 1)
        await until(lambda: has_one(watched, EVERY + 1))
    assert await kept(watched, "of old") is None
    snapshot = await kept(watched)
    assert snapshot is not None
    assert CODEC.decode(snapshot.state) == Count(EVERY + 1, EVERY + 1)


def whole() -> bytes:
    return CODEC.encode(Count(EVERY, EVERY))


UNFIT = {
    "cut off": lambda: whole()[:-5],
    "empty": lambda: b"",
    "garbage": lambda: b"\xff\x00\xfe garbage",
    "no object": lambda: b"[]",
    "of other fields": lambda: b'{"total": 7}',
    "lacks a field": lambda: b'{"value": 7}',
    "of another type": lambda: b'{"value": "seven", "events": 7}',
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=UNFIT.keys())
@pytest.mark.parametrize("version", [EVERY, 10 * EVERY], ids=["old", "ahead of its stream"])
async def test_a_snapshot_that_is_no_state_is_ignored_counted_and_made_anew(
    watched: Watched, make: Callable[[], bytes], version: int
) -> None:
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        await until(lambda: has_one(watched, EVERY))
        await count_to(writer, 7)
    await watched.save([Snapshot(STREAM, 0, 0, "another", b"")])
    await watched.save([Snapshot(STREAM, version, version, CODEC.schema, make())])

    with capture_logs() as lines:
        async with process(watched) as cold:
            assert (await cold.execute(lambda tx: tx.state(COUNTER, STREAM.id))).result == Count(
                EVERY + 7, EVERY + 7
            )
            await until(lambda: has_one(watched, EVERY + 7))
            assert cold._snapshots.ignored == 1
            assert cold.unreadable.problem is None
    said = [line["stream"] for line in lines if line["event"] == "snapshot.ignored"]
    assert said == [str(STREAM)]
    snapshot = await kept(watched)
    assert snapshot is not None
    assert CODEC.decode(snapshot.state) == Count(EVERY + 7, EVERY + 7)

    watched.loaded = 0
    async with process(watched) as cold:
        assert (await cold.execute(one_more)).result == Count(EVERY + 8, EVERY + 8)
        assert cold._snapshots.ignored == 0
    assert watched.loaded == 0, "it is read from the new one"


@pytest.mark.parametrize("ahead", [1, 2**31 - EVERY - 10])
async def test_a_snapshot_ahead_of_its_stream_is_ignored_counted_and_made_anew(
    watched: Watched, ahead: int
) -> None:
    """It can be decoded, and no event could be appended to what it says: its commands, and all others, would wait."""
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        await until(lambda: has_one(watched, EVERY))
        await count_to(writer, 7)
    version = EVERY + 7 + ahead
    await watched.save([Snapshot(STREAM, 0, 0, "another", b"")])
    await watched.save([Snapshot(STREAM, version, version, CODEC.schema, CODEC.encode(Count(1, version)))])
    async with process(watched) as cold, asyncio.timeout(60):
        assert (await cold.execute(one_more)).result == Count(EVERY + 8, EVERY + 8)
        await until(lambda: has_one(watched, EVERY + 7))
        assert cold._snapshots.ignored == 1
    async with process(watched) as cold:
        assert (await cold.execute(one_more)).result == Count(EVERY + 9, EVERY + 9)
        assert cold._snapshots.ignored == 0


async def test_a_snapshot_that_its_stream_has_caught_up_with_is_ignored(watched: Watched) -> None:
    """It was ahead, as of a history that a restore took back; now the stream has another event of that version."""
    ahead = EVERY + 9
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        await until(lambda: has_one(watched, EVERY))
        await count_to(writer, 7)
        await watched.save([Snapshot(STREAM, 0, 0, "another", b"")])
        of_before = Snapshot(STREAM, ahead, EVERY + 7, CODEC.schema, CODEC.encode(Count(1, ahead)))
        await watched.save([of_before])
        await count_to(writer, 2)
    async with process(watched) as cold:
        assert (await cold.execute(one_more)).result == Count(EVERY + 10, EVERY + 10)
        assert cold._snapshots.ignored == 1


async def test_a_snapshot_that_its_events_do_not_follow_from_is_ignored(watched: Watched) -> None:
    """It can be decoded; that it is none of the stream's states shows where evolve fails over the next event."""

    def evolve(count: Count, event: Message) -> Count:
        assert count.value == count.events
        return COUNTER.evolve(count, event)

    strict = replace(COUNTER, evolve=evolve)
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        await until(lambda: has_one(watched, EVERY))
        await count_to(writer, 7)
    await watched.save([Snapshot(STREAM, 0, 0, "another", b"")])
    await watched.save([Snapshot(STREAM, EVERY, EVERY, CODEC.schema, CODEC.encode(Count(3, 5)))])
    async with process(watched) as cold:
        assert (await cold.execute(lambda tx: tx.do(strict, STREAM.id, Add(1)))).result.value == EVERY + 8
        await until(lambda: has_one(watched, EVERY + 7))


async def test_a_snapshot_is_not_replaced_where_the_events_cannot_be_read(watched: Watched) -> None:
    """A newer version of the program may be able to read it."""
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        await until(lambda: has_one(watched, EVERY))
        for _ in range(2):
            await poison(watched, STREAM, unknown_type())  # type: ignore[arg-type]
    await watched.save([Snapshot(STREAM, EVERY + 1, EVERY + 1, CODEC.schema, b"of a newer version")])
    async with process(watched) as cold:
        with pytest.raises(StreamUnreadable):
            await cold.execute(one_more)
        await cold._snapshots._save_some()
        snapshot = await kept(watched)
    assert snapshot is not None
    assert snapshot.state == b"of a newer version"


async def test_nobody_waits_for_a_snapshot(watched: Watched) -> None:
    watched.saves.clear()
    async with process(watched) as writer:
        await count_to(writer, EVERY)
        async with asyncio.timeout(60):
            await watched.saving.wait()
            await count_to(writer, EVERY)
        assert await kept(watched) is None
        watched.saves.set()
        await until(lambda: has_one(watched, 2 * EVERY))


async def test_streams_that_are_due_together_give_others_a_turn_between_them(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots, happened = Snapshots(log, every=1), list[str]()
    encode = StateCodec.encode

    def encoded(codec: StateCodec, state: Count) -> bytes:
        if "encoded" not in happened:  # the stream grows on, and is due again within the same batch
            offer(STREAM.id, 2)
        happened.append("encoded")
        return encode(codec, state)

    def offer(id: str, version: int) -> None:
        stream = StreamId(COUNTER.name, id)
        snapshots.offer_all({stream: Entry(COUNTER, Count(version), version, version, 0)})

    async def others() -> None:
        while True:
            happened.append("turn")
            await asyncio.sleep(0)

    monkeypatch.setattr(StateCodec, "encode", encoded)
    for id in ("b", "c", STREAM.id):
        offer(id, 1)
    tasks = [asyncio.create_task(snapshots.run()), asyncio.create_task(others())]
    await until(lambda: has_one(Watched(log), 2))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert happened.count("encoded") == 4
    assert ("encoded", "encoded") not in pairwise(happened)


@pytest.mark.parametrize("state", [Count(), object()], ids=["sound", "not encoded"])
async def test_no_more_is_remembered_of_snapshots_of_no_use_than_waits(
    monkeypatch: pytest.MonkeyPatch, state: object
) -> None:
    """After an upgrade they may be those of all streams, and of any aggregate the state may be none to encode."""
    monkeypatch.setattr(snapshots, "_MOST_WAITING", 3)
    saved = Snapshots(MemoryLog("log"))
    saving = asyncio.create_task(saved.run())
    try:
        for number in range(10):
            saved.replace(StreamId(COUNTER.name, str(number)), Entry(COUNTER, state, 1, 1, 0))
        await until(lambda: saved.waiting == 0 and not saved._unfit)
    finally:
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)


def test_rewording_a_docstring_leaves_snapshots_as_they_are() -> None:
    def schema(words: str) -> str:
        @dataclass(frozen=True)
        class State:
            title: str = ""

        State.__doc__ = words
        return StateCodec(Aggregate("any", State(), COUNTER.decide, COUNTER.evolve, str)).schema

    assert schema("In one word.") == schema("In other words.")


def test_the_mark_of_a_state_is_as_long_as_it_is_stored() -> None:
    assert len(StateCodec(COUNTER).schema) == 16
