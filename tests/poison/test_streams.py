"""A stream that cannot be read fails the units that read it: loaded, refreshed after a race, or under the lock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int32Value, Int64Value, StringValue
from structlog.testing import capture_logs

from tests.kernel.counter import ALARM, COUNTER, Add, Alarm, Count, Set
from tests.poison.kinds import KINDS, Kind, fails, learn, no_evolve, patched, poison, unknown_type
from tests.waiting import until
from twinlog import (
    Aggregate,
    FailedPrecondition,
    Log,
    Metadata,
    Schema,
    StreamId,
    Transaction,
    TwinlogError,
    Writer,
)
from twinlog.log import group_commit, unreadable
from twinlog.log.lineage import Lineage
from twinlog.log.ports import ReadRequest, StreamSlice
from twinlog.log.snapshots import EVERY
from twinlog.log.twin import EventTooLarge
from twinlog.log.units import Request
from twinlog.model.errors import PartlyUnavailable, ReplyUnreadable, StreamUnreadable, UpcasterFailed
from twinlog.testing import START, MemoryLog, MemoryTwin
from twinlog.testing.internals import AnyAggregate, CheckpointAdvance, RandomIds, SystemClock

BAD = StreamId(COUNTER.name, "bad")
PATHS = ["cold", "raced", "locked"]


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog("counters")


@asynccontextmanager
async def writing(log: Log, schema: Schema | None = None) -> AsyncIterator[Writer]:
    async with Writer(log, schema=schema or Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        yield writer


def add(id: str, amount: int = 1, aggregate: AnyAggregate = COUNTER) -> Callable[[Transaction], Count]:
    return lambda tx: tx.do(aggregate, id, Add(amount))


async def told(writer: Writer, *works: Callable[[Transaction], Any]) -> Sequence[Any]:
    """What a batch comes to."""
    results = await asyncio.gather(*(writer.execute(work) for work in works), return_exceptions=True)
    return [result if isinstance(result, BaseException) else result.result for result in results]


TOLERANT = patched(COUNTER, evolve=lambda c, e: COUNTER.evolve(c, e) if isinstance(e, Int64Value) else c)
"""Takes every event that it can decode."""


async def of(
    kind: Kind,
    log: MemoryLog,
    path: str,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    aggregate: AnyAggregate = COUNTER,
) -> int:
    """The stream is poisoned, and the writer is about to meet it in one of the ways that it may; gives the version."""
    if path != "cold":
        await told(writer, add("bad", 1, aggregate), add("bad", 1, aggregate))
    else:
        async with writing(log) as before:
            await told(before, add("bad"), add("bad"))
    if path == "locked":
        monkeypatch.setattr(group_commit, "_OPTIMISTIC_ROUNDS", 0)
    return await poison(log, BAD, kind)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
async def test_neighbors_in_a_batch_notice_nothing(
    log: MemoryLog, make: Callable[[], Kind], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = make()
    async with writing(log) as writer:
        version = await of(kind, log, path, writer, monkeypatch)
        with capture_logs() as lines:
            for round in (1, 2):
                *good, last = await told(writer, *(add(f"n{n}") for n in range(50)), add("bad"))
                assert good == [Count(round, round)] * 50
        assert isinstance(last, StreamUnreadable)
        assert (last.facts["stream"], last.facts["version"]) == (str(BAD), str(version))
        assert kind.said in last.facts["why"]
        said = [line for line in lines if line["event"] == "stream.unreadable"]
        assert [line["stream"] for line in said] == [str(BAD)], "once"
        what = "commands are refused there; tried again every 5 s"
        assert f"{str(last).removesuffix('.')}; {what}" == writer.unreadable.problem
    assert len(log.streams[BAD]) == version, "nothing was appended to it"


async def test_a_stream_of_another_aggregate_with_the_same_id_notices_nothing(log: MemoryLog) -> None:
    namesake = patched(COUNTER, name="namesake")
    async with writing(log) as writer:
        await told(writer, add("bad"), add("bad"))
        await poison(log, BAD, unknown_type())
    async with writing(log) as writer:
        for number in (1, 2):
            failed, good = await told(writer, add("bad"), add("bad", 5, namesake))
            assert (type(failed), good) == (StreamUnreadable, Count(5 * number, number))
    async with writing(log) as writer:
        await told(writer, add("bad"))
        assert await told(writer, add("bad", 5, namesake)) == [Count(15, 3)], "read after the other one"


async def test_an_evolve_that_forgets_an_event_begins_no_stream_anew(log: MemoryLog) -> None:
    """As a match without a line for what a newer version writes: those behind it were folded from the beginning."""

    def forgets(count: Count, event: Message) -> Any:
        match event:
            case Int64Value(value=1 | 3):
                return COUNTER.evolve(count, event)

    async with writing(log) as writer:
        await told(writer, *(add("bad", amount) for amount in (1, 2, 3)))
    async with writing(log) as writer:
        bad, good = await told(writer, add("bad", 1, patched(COUNTER, evolve=forgets)), add("good"))
    assert isinstance(bad, StreamUnreadable)
    assert bad.facts["version"] == "2"
    assert "it gives None after google.protobuf.Int64Value; return the state" in str(bad)
    assert good == Count(1, 1)
    assert len(log.streams[BAD]) == 3, "nothing was decided on half of it"


async def test_an_event_that_the_stream_does_not_take_is_not_decided(log: MemoryLog) -> None:
    """Nothing behind it could be copied any more."""

    class Limited(MemoryTwin):
        most_bytes = 100

        async def learn_most_bytes(self) -> None:
            """It stays so."""

    notes: Aggregate[int, str] = Aggregate(
        "note", 0, lambda _, text: [StringValue(value=text)], lambda note, _: note + 1, lambda _: "one"
    )
    lineage, clock = Lineage(log, Limited("counters")), SystemClock()
    async with Writer(log, schema=Schema(), clock=clock, ids=RandomIds(), lineage=lineage) as writer:
        *good, large, last = await told(
            writer,
            *(add(f"n{n}") for n in range(5)),
            lambda tx: tx.do(notes, "large", "x" * 99),
            lambda tx: tx.do(notes, "small", "x" * 98),
        )
    assert good == [Count(1, 1)] * 5
    assert last == 1
    assert isinstance(large, EventTooLarge)
    assert str(large).startswith(
        "An event of stream note/large would have 101 bytes, and nats-server carries 100 of"
    )


class Damaged(MemoryLog):
    """A page of it cannot be read: that of the stream's events, or of its snapshot."""

    of = ""

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        asked = [each for each in wanted if each.stream == BAD]
        if any(self.of == "events" or (self.of == "snapshot" and each.schema) for each in asked):
            raise PartlyUnavailable(why="invalid page in block 7")
        return await super().load(wanted)


async def test_a_damaged_page_concerns_its_stream_only() -> None:
    log = Damaged("counters")
    async with writing(log) as writer:
        await asyncio.gather(*(writer.execute(add(id)) for id in ("bad", "n0", "n1") for _ in range(100)))
        await until(lambda: len(log.snapshots) == 3)

    log.of = "events"
    async with writing(log) as cold:
        *good, last = await told(cold, add("n0"), add("n1"), add("bad"))
        assert good == [Count(101, 101)] * 2
        assert isinstance(last, StreamUnreadable)
        assert "invalid page" in last.facts["why"]
        assert str(BAD) in (cold.unreadable.problem or "")
        assert cold.problem is None
        log.of = ""
        assert await told(cold, add("bad")) == [Count(101, 101)], "once the page is mended"

    log.of = "snapshot"
    async with writing(log) as cold:
        assert await told(cold, add("n0"), add("bad")) == [Count(102, 102)] * 2
        assert cold.snapshots_ignored == 1
        await until(lambda: log.snapshots[BAD].version == 101)


@pytest.mark.parametrize("path", PATHS)
async def test_once_the_type_is_known_all_goes_on_without_a_restart(
    log: MemoryLog, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unreadable, "_AGAIN_SECONDS", 0.0)
    kind = unknown_type()
    async with writing(log) as writer:
        await of(kind, log, path, writer, monkeypatch, TOLERANT)
        [refused] = await told(writer, add("bad", aggregate=TOLERANT))
        assert isinstance(refused, StreamUnreadable)
        trying = asyncio.create_task(writer.unreadable.run(writer.read))
        learn(kind)
        await until(lambda: writer.unreadable.problem is None)
        assert await told(writer, add("bad", aggregate=TOLERANT)) == [Count(3, 3)]
        trying.cancel()


class Lacking(MemoryLog):
    """One from which somebody has taken an event of the bad stream."""

    def __init__(self) -> None:
        super().__init__("counters")
        self.gone = 0

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        return [
            each._replace(events=[e for e in each.events if (e.stream, e.version) != (BAD, self.gone)])
            for each in await super().load(wanted)
        ]


@pytest.mark.parametrize(("events", "gone"), [(3, 1), (3, 2), (102, 1), (102, 103)])
async def test_a_stream_of_which_an_event_is_gone_is_not_decided_without_it(events: int, gone: int) -> None:
    log, snapshot = Lacking(), events > EVERY
    async with writing(log) as writer:
        await told(writer, *[add("bad") for _ in range(events)])
        await until(lambda: bool(log.snapshots) == snapshot)
        await told(writer, add("bad"), add("bad"))
    log.gone = gone
    async with writing(log) as cold:
        with capture_logs() as said:
            spoilt, neighbor = await told(cold, add("bad"), add("n0"))
        assert neighbor == Count(1, 1)
        assert "snapshot.ignored" not in {line["event"] for line in said}, "it is as good as ever"
        if snapshot and gone == 1:  # the state is known without it
            assert spoilt == Count(events + 3, events + 3)
        else:
            assert isinstance(spoilt, StreamUnreadable), spoilt
            assert (spoilt.facts["stream"], spoilt.facts["version"]) == (str(BAD), str(gone))
    log.gone = 0
    async with writing(log) as restored:
        assert isinstance((await told(restored, add("bad")))[0], Count), "once it is there again"


async def test_what_was_read_before_is_not_read_again() -> None:
    loaded: list[int] = []

    class Noted(MemoryLog):
        async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
            found = await super().load(wanted)
            loaded.extend(len(each.events) for each in found)
            return found

    noted = Noted("counters")
    async with writing(noted) as writer:
        await asyncio.gather(*(writer.execute(add("bad")) for _ in range(90)))
        await poison(noted, BAD, unknown_type())
    async with writing(noted) as cold:
        for _ in range(3):
            await told(cold, add("bad"))
    assert loaded[-3:] == [91, 1, 1]


async def test_a_preload_fails_nobody(log: MemoryLog) -> None:
    async with writing(log) as writer:
        await told(writer, add("bad"))
        await poison(log, BAD, unknown_type())
    async with writing(log) as cold:
        outcome = await cold.execute(add("good"), preload=[(COUNTER, "bad"), (COUNTER, "good")])
        assert outcome.result == Count(1, 1)
        assert str(BAD) in (cold.unreadable.problem or "")


async def test_what_is_assumed_empty_and_is_not_fails_alone(log: MemoryLog) -> None:
    async with writing(log) as writer:
        await told(writer, add("bad"))
        await poison(log, BAD, unknown_type())
    async with writing(log) as cold:
        bad, good = await asyncio.gather(
            cold.execute(add("bad"), assume_empty=[(COUNTER, "bad")]),
            cold.execute(add("good"), assume_empty=[(COUNTER, "good")]),
            return_exceptions=True,
        )
    assert isinstance(bad, StreamUnreadable)
    assert not isinstance(good, BaseException)


async def test_a_retry_gets_its_answer_even_from_a_stream_that_cannot_be_read(log: MemoryLog) -> None:
    request = Request("0196aa00-0000-7000-8000-000000000001", b"1", Int64Value)

    def work(tx: Transaction) -> Int64Value:
        return Int64Value(value=tx.do(COUNTER, "bad", Add(1)).value)

    async with writing(log) as writer:
        await writer.execute(work, request=request)
        await poison(log, BAD, unknown_type())
        assert (await writer.execute(work, request=request)).result.value == 1


async def test_a_reply_that_cannot_be_read_or_made_fails_its_own_caller(log: MemoryLog) -> None:
    request = Request("0196aa00-0000-7000-8000-000000000001", b"1", Int64Value)
    other = request._replace(request_id="0196aa00-0000-7000-8000-000000000002")
    async with writing(log) as writer:
        await writer.execute(lambda _tx: Int64Value(value=1), request=request)
        log.replies[request.request_id] = log.replies[request.request_id]._replace(reply=b"\xff")
        unreadable, unmade, good = await asyncio.gather(
            writer.execute(lambda _tx: Int64Value(value=1), request=request),
            writer.execute(lambda _tx: None, request=other),
            writer.execute(add("good")),
            return_exceptions=True,
        )
    assert isinstance(unreadable, ReplyUnreadable)
    assert request.request_id in str(unreadable)
    assert "google.protobuf.Int64Value" in str(unreadable)
    assert isinstance(unmade, TypeError)
    assert not isinstance(good, BaseException)


@pytest.mark.parametrize("function", ["decide", "evolve", "partition_key"])
async def test_an_aggregate_that_fails_while_deciding_fails_that_unit(log: MemoryLog, function: str) -> None:
    broken = patched(COUNTER, **{function: fails})

    def both(tx: Transaction) -> Count:
        """Goes on after the failure: nothing of it may stay."""
        with pytest.raises(StreamUnreadable):
            tx.do(broken, "b", Add(1))
        return tx.do(COUNTER, "c", Add(1))

    async with writing(log) as writer:
        with capture_logs() as lines:
            bad, good, gone_on, again = await told(
                writer, add("a", aggregate=broken), add("a"), both, add("a", aggregate=broken)
            )
        assert writer.unreadable.problem is None, "what is stored can be read"
    assert isinstance(bad, StreamUnreadable)
    assert isinstance(again, StreamUnreadable)
    assert f"{function} fails on Add (LookupError: a defect)" in bad.facts["why"]
    assert (bad.facts["stream"], bad.facts["version"]) == ("counter/a", "0")
    assert (good, gone_on) == (Count(1, 1), Count(1, 1))
    assert {event.stream.id for event in log.events} == {"a", "c"}
    said = [line for line in lines if line["event"] == "stream.unreadable"]
    assert all(isinstance(line["exc_info"].__cause__, LookupError) for line in said)
    assert [line["version"] for line in said] == ["0", "1"]


@pytest.mark.parametrize("error", [FailedPrecondition("no"), TwinlogError("no")])
async def test_what_an_aggregate_says_itself_is_passed_on(log: MemoryLog, error: TwinlogError) -> None:
    def refuses(_count: Count, _command: Add) -> Sequence[Int64Value]:
        raise error

    async with writing(log) as writer:
        assert await told(writer, add("a", aggregate=patched(COUNTER, decide=refuses))) == [error]


async def test_a_due_that_fails_concerns_its_stream_only(log: MemoryLog) -> None:
    broken = patched(ALARM, due=fails)

    def set_alarm(aggregate: AnyAggregate, id: str) -> Callable[[Transaction], Alarm]:
        return lambda tx: tx.do(aggregate, id, Set(START))

    async with writing(log) as writer:
        bad, good = await asyncio.gather(
            writer.execute(set_alarm(broken, "bad")),
            writer.execute(set_alarm(ALARM, "good")),
            return_exceptions=True,
        )
    assert isinstance(bad, StreamUnreadable)
    assert "due fails" in bad.facts["why"]
    assert not isinstance(good, BaseException)
    assert [timer.id for timer in log.timers] == ["good"]


async def test_an_upcaster_that_fails_concerns_its_stream_only(log: MemoryLog) -> None:
    schema = Schema({Int32Value: (lambda old: [Int64Value(value=1 // old.value)], [Int64Value])})
    async with writing(log) as writer:
        await told(writer, add("good"), add("bad"))
        event = log.streams[BAD][0]._replace(type=Int32Value.DESCRIPTOR.full_name, payload=b"")
        log.streams[BAD][0] = event
        with pytest.raises(UpcasterFailed):
            schema.decode(event)
    async with writing(log, schema) as cold:
        bad, good = await told(cold, add("bad"), add("good"))
    assert isinstance(bad, StreamUnreadable)
    assert "upcaster" in bad.facts["why"]
    assert good == Count(2, 2)


async def test_of_a_units_streams_one_bad_one_fails_it_whole(log: MemoryLog) -> None:
    def both(tx: Transaction) -> Count:
        tx.do(COUNTER, "good", Add(5))
        return tx.do(COUNTER, "bad", Add(1))

    async with writing(log) as writer:
        await told(writer, add("bad"))
        await poison(log, BAD, no_evolve())
        with pytest.raises(StreamUnreadable):
            await writer.execute(both, advance=CheckpointAdvance("c", 0, 5))
        assert await told(writer, add("good")) == [Count(1, 1)]
    assert log.checkpoints == {}


async def test_of_two_replicas_the_older_one_leaves_what_it_does_not_know_to_the_newer(
    log: MemoryLog,
) -> None:
    """A rolling upgrade: both write one log, and the newer one's events include a type of its own."""

    class Older(Schema):
        def decode(self, event: object) -> Sequence[object]:  # type: ignore[override]
            if event.type == "google.protobuf.StringValue":  # type: ignore[attr-defined]
                return Schema().decode(event._replace(type="tests.v1.Unheard"))  # type: ignore[attr-defined]
            return Schema().decode(event)  # type: ignore[arg-type]

    async with writing(log, Older()) as older, writing(log) as newer:
        await told(older, add("bad"), add("good"))
        await poison(log, BAD, no_evolve(), Metadata(actor="newer"))
        for number in range(1, 4):
            in_older, in_newer = await asyncio.gather(
                told(older, add("bad"), add("good", aggregate=TOLERANT), add(f"o{number}")),
                told(newer, add("bad", aggregate=TOLERANT), add("good"), add(f"n{number}")),
            )
            assert isinstance(in_older[0], StreamUnreadable)
            assert not any(isinstance(result, BaseException) for result in [*in_older[1:], *in_newer])
        assert await told(newer, add("good", 0), add("bad", 0, aggregate=TOLERANT)) == [
            Count(7, 7),
            Count(4, 4),
        ]


async def test_health_names_a_few_and_counts_the_others(log: MemoryLog) -> None:
    ids = [f"bäd{number}" for number in range(8)]
    async with writing(log) as writer:
        await told(writer, *map(add, ids))
        kind = unknown_type()
        for id in ids:
            await poison(log, StreamId(COUNTER.name, id), kind)
        await told(writer, *map(add, ids))
        said = writer.unreadable.problem or ""
    assert said.isascii()
    assert "counter/b\\xe4d7" in said
    assert said.endswith("; and 3 more; commands are refused there; tried again every 5 s")
