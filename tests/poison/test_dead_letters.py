"""Consumers over poison: commands that meet it, dead letters that are it, and what happens once it can be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import grpc
import grpc.aio
import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from structlog.types import EventDict

from tests.dead_letters.journal import (
    CONSUMER,
    JOURNAL,
    Source,
    dead_lettering,
    event,
    journal,
    positions,
    replica,
)
from tests.kernel.edge import rich
from tests.memory_shop import NoContext
from tests.poison.kinds import KINDS, Kind, learn, patched, poison, unknown_type
from tests.waiting import until
from twinlog import Log, Projection, Schema, StreamId
from twinlog.consume import dead_letter_operations
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import Failure
from twinlog.model.errors import StreamUnreadable
from twinlog.rpc import PageTokens, serve
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.rpc.registrations import registrations
from twinlog.testing import MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import DEAD_LETTERS, Cursor, Snapshot, StateCodec
from twinlog.v1 import dead_letter_service_pb2 as pb
from twinlog.v1.dead_letter_service_pb2_grpc import (
    DeadLetterServiceStub,
)
from twinlog.v1.dead_letters_pb2 import EventParked

BAD = StreamId(JOURNAL.name, "bad")
LETTERS = StreamId(DEAD_LETTERS.name, CONSUMER)
TOLERANT = patched(
    JOURNAL, evolve=lambda state, e: JOURNAL.evolve(state, e) if isinstance(e, Int64Value) else state
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits longer than it has to."""
    monkeypatch.setattr("twinlog.consume.dead_lettering.RETRY_FIRST_SECONDS", 30.0)
    monkeypatch.setattr(dead_letter_operations, "_LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(dead_letter_operations, "_REPLAY_EVERY_LOOKS", 0)


@asynccontextmanager
async def operating(*consumers: DeadLettering, log: Log) -> AsyncIterator[DeadLetterOperations]:
    operations = DeadLetterOperations(log)
    for consumer in consumers:
        operations.add(consumer)
    running = asyncio.create_task(operations.run())
    yield operations
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@asynccontextmanager
async def consuming(
    source: Source, log: MemoryLog, kind: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DeadLettering]:
    """Policies whose journal takes every event, or a view."""
    if kind == "view":
        yield dead_lettering(Projection(CONSUMER, [source.view()], MemoryViews(log), schema=Schema()), log)
        return
    monkeypatch.setattr("tests.dead_letters.journal.JOURNAL", TOLERANT)
    async with replica(source, log) as handler:
        yield handler


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
async def test_an_event_whose_command_meets_poison_is_set_aside_at_once_and_alone(
    make: Callable[[], Kind],
) -> None:
    """The first pause would last for half a minute."""
    source, log, kind = Source(), MemoryLog("own"), make()
    async with asyncio.timeout(60), replica(source, log) as handler:
        at = await handler.handle(source.add("bad:1", "a:1"), 0)
        await poison(log, BAD, kind)
        at = await handler.handle(source.add("a:2", "bad:2", "b:1", "bad:3", "a:3"), at)
        assert at == 7
        dead = await handler.dead_letters()
    assert positions(dead) == {"bad": [4, 6]}
    first = dead.first("bad")
    assert first is not None
    assert (first.error_type, first.attempts) == ("StreamUnreadable", 1)
    assert "Stream journal/bad is unreadable at version 2" in first.error
    assert kind.said in first.error
    assert (journal(log, "a"), journal(log, "b")) == ([1, 2, 3], [1])


async def test_an_event_on_which_decide_fails_is_set_aside_at_once_and_alone() -> None:
    def decide(state: object, command: object) -> object:
        if command.value == 13:  # type: ignore[attr-defined]
            raise LookupError("a defect")
        return JOURNAL.decide(state, command)  # type: ignore[arg-type]

    source, log = Source(), MemoryLog("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.dead_letters.journal.JOURNAL", patched(JOURNAL, decide=decide))
        async with asyncio.timeout(60), replica(source, log) as handler:
            await handler.handle(source.add("a:1", "b:13", "a:2", "b:2"), 0)
            dead = await handler.dead_letters()
    assert positions(dead) == {"b": [2, 4]}
    assert journal(log, "a") == [1, 2]


async def test_once_its_stream_can_be_read_all_goes_on_by_itself_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, log, kind = Source(), MemoryLog("own"), unknown_type()
    async with consuming(source, log, "policies", monkeypatch) as handler:
        at = await handler.handle(source.add("bad:1"), 0)
        await poison(log, BAD, kind)
        at = await handler.handle(source.add("bad:2", "bad:3", "a:1"), at)
        async with operating(handler, log=log) as operations:
            await until(lambda: operations.counts() == {CONSUMER: 2})
            learn(kind)
            await until(lambda: operations.problem is None)
        await handler.handle(source.add("bad:4"), at)
    written = [Int64Value.FromString(e.payload).value for e in log.streams[BAD] if e.type != kind.type]
    assert written == [1, 2, 3, 4]
    assert all(not e.metadata.actor.startswith("operator") for e in log.events)


async def test_what_came_behind_while_the_earlier_ones_were_replayed_goes_on_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It never failed, and what it waits for is gone."""
    source, log, kind = Source(), MemoryLog("own"), unknown_type()
    async with consuming(source, log, "policies", monkeypatch) as handler:
        at = await handler.handle(source.add("bad:1"), 0)
        await poison(log, BAD, kind)
        await handler.handle(source.add("bad:2", "bad:3"), at)
        learn(kind)
        operations = DeadLetterOperations(log)
        operations.add(handler)
        first, _ = await operations.listed()
        assert [tried.failure async for tried in operations.replay([first])] == [None]
        assert positions(await handler.dead_letters()) == {"bad": [3]}
        async with operating(handler, log=log) as running:
            await until(lambda: running.problem is None and log.streams[BAD][-1].version == 4)


@pytest.mark.parametrize("consumer", ["policies", "view"])
async def test_an_unknown_event_is_replayed_once_its_type_is_known(
    consumer: str, monkeypatch: pytest.MonkeyPatch, lines: list[EventDict]
) -> None:
    source, log, kind = Source(), MemoryLog("own"), unknown_type()
    async with consuming(source, log, consumer, monkeypatch) as handler:
        strange = event(2, "a:2")._replace(type=kind.type, payload=b"")
        await handler.handle([event(1, "b:1"), strange, event(3, "c:1")], 0)
        assert positions(await handler.dead_letters()) == {"a": [2]}
        async with operating(handler, log=log) as operations:
            before = len(log.events)
            await until(lambda: any(line["event"] == "dead_letters" for line in lines))
            await asyncio.sleep(0.05)
            assert len(log.events) == before, "a failure that is known already is not noted again"
            monkeypatch.setattr(Source, "read", lambda self, text: ("a", 2) if not text else ("x", 1))
            monkeypatch.setattr(Schema, "decode", _as_text(kind))
            await until(lambda: operations.problem is None)


def _as_text(kind: Kind) -> Callable[..., object]:
    """The newer version, in which the type is an older name of a text."""
    decode = Schema.decode

    def decoded(self: Schema, event: object) -> object:
        if event.type == kind.type:  # type: ignore[attr-defined]
            event = event._replace(type="google.protobuf.StringValue")  # type: ignore[attr-defined]
        return decode(self, event)  # type: ignore[arg-type]

    return decoded


async def test_keys_are_tried_in_turn_and_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_operations, "_REPLAYED_KEYS", 3)
    source, log = Source(), MemoryLog("own")
    async with replica(source, log) as handler:
        strange = [event(n, f"k{n}:1")._replace(type="tests.v1.Unheard") for n in range(1, 9)]
        await handler.handle(strange, 0)
        tried: list[str] = []
        replay = handler.replay

        async def noted(event: object, metadata: object) -> None:
            tried.append(event.partition_key)  # type: ignore[attr-defined]
            await replay(event, metadata)  # type: ignore[arg-type]

        monkeypatch.setattr(handler, "replay", noted)
        operations = DeadLetterOperations(log)
        for _ in range(3):
            await operations._replay_readable(handler, await handler.dead_letters())
    assert tried == [f"k{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 1)]


async def test_what_waits_behind_and_fails_itself_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    source, log, kind = Source(), MemoryLog("own"), unknown_type()
    async with consuming(source, log, "policies", monkeypatch) as handler:
        at = await handler.handle(source.add("bad:1"), 0)
        await poison(log, BAD, kind)
        source.poison = {"bad:3"}
        await handler.handle(source.add("bad:2", "bad:3"), at)
        learn(kind)

        async def first() -> tuple[int, str]:
            letter = (await handler.dead_letters()).first("bad")
            return (0, "") if letter is None else (letter.position, letter.error_type)

        async def second_failed() -> bool:
            return await first() == (3, "Broken")

        async with operating(handler, log=log) as operations:
            await until(second_failed)
            await until(lambda: operations.counts() == {CONSUMER: 1})


async def test_what_an_operator_has_to_decide_is_not_replayed_without_one() -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1"}
    async with replica(source, log) as handler:
        [first] = source.add("a:1")
        await handler.dead_letter(first, Failure("Broken", "cannot bear a:1", 6), 0)
        source.poison.clear()
        operations = DeadLetterOperations(log)
        assert await operations._replay_readable(handler, await handler.dead_letters()) == 0
        assert handler.count == 1


# --- dead letters that cannot be read themselves ---


@asynccontextmanager
async def with_poisoned_letters(
    kind: Kind, consumer: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Source, MemoryLog, DeadLettering]]:
    """A consumer with one dead letter, and poison behind it."""
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1"}
    async with consuming(source, log, consumer, monkeypatch) as before:
        [first] = source.add("a:1")
        await before.dead_letter(first, Failure("Broken", "cannot bear a:1", 6), 0)
    await poison(log, LETTERS, kind)
    source.poison.clear()
    async with consuming(source, log, consumer, monkeypatch) as handler:
        yield source, log, handler


@pytest.mark.parametrize("consumer", ["policies", "view"])
@pytest.mark.parametrize("make", KINDS[:2], ids=lambda make: make.__name__)
async def test_a_consumer_whose_dead_letters_cannot_be_read_stops_visibly_and_loses_nothing(
    make: Callable[[], Kind], consumer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, twin = make(), MemoryTwin("source")
    await twin.create(1)
    async with with_poisoned_letters(kind, consumer, monkeypatch) as (source, log, handler):
        other_source, other_log = Source(), MemoryLog("other")
        await twin.publish([*source.events, *source.add("a:2", "b:1")])
        cursor = Cursor(twin, handler)
        following = asyncio.create_task(cursor.run())
        async with replica(other_source, other_log) as other:
            other.name = "tests.other"
            other_source.poison = {"c:1"}
            await other.dead_letter(other_source.add("c:1")[0], Failure("Broken", "cannot bear c:1", 6), 0)
            async with operating(handler, other, log=log) as operations:
                await until(lambda: kind.said in (cursor.problem or ""))
                await until(
                    lambda: (
                        f"the dead letters of {CONSUMER} cannot be counted: Stream {LETTERS} is unreadable"
                        in (operations.problem or "")
                    )
                )
                assert operations.counts() == {"tests.other": 1}
                assert [one.address for one in await operations.listed("tests.other")] == ["source/1"]
                assert {one.consumer.name for one in await operations.listed()} == {"tests.other"}
                with pytest.raises(StreamUnreadable):
                    await operations.listed(CONSUMER)
                assert not journal(log, "b"), "an event could overtake one that is set aside"
                if kind.type.startswith("poison"):
                    learn(kind)
                    await until(lambda: cursor.problem is None)
                    await until(lambda: positions(handler._known) == {"a": [1, 2]})
        following.cancel()


async def test_a_consumer_at_work_stops_where_its_dead_letters_become_unreadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While nothing is parked they are not looked at; then they are."""
    source, log, kind = Source(), MemoryLog("own"), unknown_type()
    async with consuming(source, log, "view", monkeypatch) as handler:
        source.poison = {"a:1"}
        await handler.dead_letter(source.add("a:1")[0], Failure("Broken", "cannot bear a:1", 6), 0)
        await poison(log, LETTERS, kind)
        with pytest.raises(StreamUnreadable):
            await handler.handle(source.add("b:1", "a:2"), 1)
        assert await handler._consumer.checkpoint() == 1


async def test_a_snapshot_of_dead_letters_that_is_garbage_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    source, log = Source(), MemoryLog("own")
    async with consuming(source, log, "policies", monkeypatch) as before:
        await before.dead_letter(source.add("a:1")[0], Failure("Broken", "cannot bear a:1", 6), 0)
    log.snapshots[LETTERS] = Snapshot(LETTERS, 1, 1, StateCodec(DEAD_LETTERS).schema, b"garbage")
    async with consuming(source, log, "policies", monkeypatch) as after:
        assert positions(await after.dead_letters()) == {"a": [1]}


async def test_an_operator_hears_which_record_cannot_be_read_and_sees_the_others() -> None:
    source, log = Source(), MemoryLog("own")
    operations = DeadLetterOperations(log)
    async with AsyncExitStack() as stack:
        handler = await stack.enter_async_context(replica(source, log))
        operations.add(handler)
        for position, text in enumerate(("a:1", "b:1"), 1):
            [new] = source.add(text)
            await handler.dead_letter(new, Failure("Broken", "no", 6), position - 1)
        record = log.streams[LETTERS][0]
        log.streams[LETTERS][0] = record._replace(payload=b"\xff")
        service = DeadLetterService(operations, PageTokens(b"key"))
        server = await stack.enter_async_context(serve([*registrations(service)], domain="tests"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(server.address))
        letters = DeadLetterServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await letters.GetDeadLetter(pb.GetDeadLetterRequest(address="source/1"))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"Stream {LETTERS} is unreadable at version 1" in rich(refused.value).message
        listed = (await letters.ListDeadLetters(pb.ListDeadLettersRequest(key="b"))).dead_letters
        assert [letter.address for letter in listed] == ["source/2"]


async def test_an_operator_sees_a_dead_letter_whose_bytes_are_no_event() -> None:
    source, log = Source(), MemoryLog("own")
    operations = DeadLetterOperations(log)
    service = DeadLetterService(operations, PageTokens(b"key"))
    async with replica(source, log) as handler:
        operations.add(handler)
        await handler.dead_letter(source.add("a:1")[0], Failure("Broken", "no", 6), 0)
        record = log.streams[LETTERS][0]
        parked = EventParked.FromString(record.payload)
        parked.event = b"\xff"
        log.streams[LETTERS][0] = record._replace(payload=parked.SerializeToString())
        [listed] = (await service.ListDeadLetters(pb.ListDeadLettersRequest(), NoContext())).dead_letters
        assert (listed.address, listed.type, listed.error) == ("source/1", "", "no")
        shown = await service.GetDeadLetter(pb.GetDeadLetterRequest(address="source/1"), NoContext())
        assert (shown.dead_letter, shown.payload) == (listed, b"\xff")
