"""Policies that fail on an event: it is parked, what comes after it under its key too, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext

import pytest
from structlog.types import EventDict

from tests.dead_letters.journal import (
    CONSUMER,
    JOURNAL,
    OPERATOR,
    Broken,
    Source,
    Write,
    dead_lettering,
    event,
    journal,
    positions,
    replica,
)
from tests.waiting import until
from twinlog import Recorded, Schema, StreamId, TwinlogError, Unavailable, Writer
from twinlog.consume import ConsumerWrapper, Progress
from twinlog.consume.dead_lettering import NOT_THE_EVENTS_FAULT, RETRIES, DeadLettering
from twinlog.consume.dead_letters import (
    DeadLetterId,
    DeadLettersChanged,
    Discard,
    NotFirst,
    NotParked,
)
from twinlog.consume.policies import PolicyConsumer
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import CheckpointMoved, Cursor, RandomIds, SystemClock


async def test_the_other_keys_flow_and_the_key_keeps_its_order(lines: list[EventDict]) -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:2"}
    async with replica(source, log) as handler:
        events = source.add("a:1", "b:1", "a:2", "b:2", "a:3", "c:1")
        assert await handler.handle(events, 0) == 6
        assert await handler.handle(source.add("a:4", "b:3"), 6) == 8
        assert positions(await handler.dead_letters()) == {"a": [3, 5, 7]}
    assert (journal(log, "a"), journal(log, "b"), journal(log, "c")) == ([1], [1, 2, 3], [1])
    assert source.tries >= RETRIES + 1
    said = [(line["event_address"], line["error"]) for line in lines if line["event"] == "dead_letter.parked"]
    assert said == [("source/3", "cannot bear a:2")]
    assert log.checkpoints == {CONSUMER: 8}


async def test_a_replay_has_its_effect_exactly_once_and_in_order() -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1"}
    async with replica(source, log) as handler:
        first, second = source.add("a:1", "a:2")
        await handler.handle([first, second], 0)
        with pytest.raises(Broken):
            await handler.replay(first, OPERATOR)
        source.poison.clear()
        with pytest.raises(NotFirst):
            await handler.replay(second, OPERATOR)
        await handler.replay(first, OPERATOR)
        with pytest.raises(NotParked):
            await handler.replay(first, OPERATOR)
        await handler.handle(source.add("a:3"), 2)
        assert positions(await handler.dead_letters()) == {"a": [2, 3]}
        await handler.replay(second, OPERATOR)
        await handler.replay(source.events[2], OPERATOR)
        await handler.handle(source.add("a:4"), 3)
        assert handler.count == 0
    assert journal(log, "a") == [1, 2, 3, 4]


async def test_a_discarded_event_has_no_effect_and_frees_its_key() -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1"}
    async with replica(source, log) as handler:
        await handler.handle(source.add("a:1"), 0)
        await handler.note(Discard(DeadLetterId(CONSUMER, "source", 1, "a"), "a typo"), OPERATOR)
        await handler.handle(source.add("a:2"), 1)
    assert journal(log, "a") == [2]
    discarded = log.events[-2]
    assert (discarded.type, discarded.metadata, discarded.partition_key) == (
        "twinlog.v1.EventDiscarded",
        OPERATOR,
        "a",
    )


async def test_an_event_that_works_when_it_is_tried_again_is_not_parked() -> None:
    source, log = Source(), MemoryLog("own")

    def recovers(text: str) -> tuple[str, int]:
        source.tries += 1
        if source.tries < 4:
            raise Broken
        return "a", 1

    source.read = recovers  # type: ignore[method-assign]
    async with replica(source, log) as handler:
        await handler.handle(source.add("a:1"), 0)
        assert handler.count == 0
    assert journal(log, "a") == [1]


@pytest.mark.parametrize(
    ("type", "payload", "error"),
    [
        ("tests.v1.Unheard", b"", "UnknownEventType"),
        ("google.protobuf.StringValue", b"\xff", "UndecodableEvent"),
    ],
)
async def test_what_cannot_be_decoded_is_parked_at_once(type: str, payload: bytes, error: str) -> None:
    source, log = Source(), MemoryLog("own")
    strange = event(1, "a:1")._replace(type=type, payload=payload)
    async with replica(source, log) as handler:
        await handler.handle([strange, event(2, "a:2"), event(3, "b:1")], 0)
        dead = await handler.dead_letters()
        first = dead.first("a")
    assert positions(dead) == {"a": [1, 2]}
    assert first and (first.error_type, first.attempts) == (error, 1)
    assert journal(log, "b") == [1]


async def test_where_everything_fails_the_consumer_waits_once() -> None:
    source, log = Source(), MemoryLog("own")
    texts = [f"{number}:1" for number in range(20)]
    source.poison = set(texts)
    async with replica(source, log) as handler:
        await handler.handle(source.add(*texts), 0)
        assert handler.count == 20
        alone = [letter.attempts for _, letter in (await handler.dead_letters()).letters()]
    assert sorted(alone) == [1] * 19 + [RETRIES + 1]


@asynccontextmanager
async def failing_with(
    failures: list[TwinlogError], source: Source, log: MemoryLog
) -> AsyncIterator[DeadLettering]:
    """One whose consumer fails with these first, the last of them first."""

    class Fails(ConsumerWrapper):
        async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
            if not failures:
                return await super().apply(events, progress)
            raise failures.pop()

    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        yield dead_lettering(Fails(PolicyConsumer(source.policies(), writer, log, Schema())), log)


@pytest.mark.parametrize("error", NOT_THE_EVENTS_FAULT)
async def test_what_is_not_the_events_fault_sets_nothing_aside(error: type[TwinlogError]) -> None:
    source, log, failures = Source(), MemoryLog("own"), [error("no")]
    async with failing_with(failures, source, log) as handler:
        with nullcontext() if error is DeadLettersChanged else pytest.raises(error):
            await handler.handle(source.add("a:1", "a:2"), 0)
        assert not failures
        assert positions(await handler.dead_letters()) == {}


@pytest.mark.parametrize("error", [CheckpointMoved, DeadLettersChanged])
async def test_an_order_that_loses_races_is_done_again_and_not_endlessly(error: type[TwinlogError]) -> None:
    source, log, failures = Source(), MemoryLog("own"), list[TwinlogError]()
    source.poison = {"a:1"}
    async with failing_with(failures, source, log) as handler:
        [parked] = source.add("a:1")
        await handler.handle([parked], 0)
        source.poison.clear()
        failures += [error("another replica was faster") for _ in range(20)]
        with pytest.raises(Unavailable, match="too busy"):
            await handler.replay(parked, OPERATOR)
        failures += [error("another replica was faster") for _ in range(19)]
        await handler.replay(parked, OPERATOR)
        assert handler.count == 0
    assert journal(log, "a") == [1]


async def test_of_two_replicas_one_parks() -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1"}
    events = source.add("a:1", "b:1")
    async with replica(source, log) as one, replica(source, log) as two:
        results = await asyncio.gather(one.handle(events, 0), two.handle(events, 0), return_exceptions=True)
        assert sorted(map(str, map(type, results))) == sorted(map(str, [int, CheckpointMoved]))
        assert positions(await two.dead_letters()) == {"a": [1]}
    assert journal(log, "b") == [1]


async def test_a_replica_that_does_not_know_of_a_replay_does_not_park_behind_it() -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1"}
    async with replica(source, log) as one, replica(source, log) as two:
        [first] = source.add("a:1")
        await one.handle([first], 0)
        source.poison.clear()
        await two.replay(first, OPERATOR)
        await one.handle(source.add("a:2"), 1)
    assert journal(log, "a") == [1, 2]
    assert not log.streams[StreamId("dead_letters", CONSUMER)][2:]


async def test_a_crash_after_parking_loses_and_repeats_nothing() -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:2"}
    events = source.add("a:1", "a:2", "b:1", "a:3")
    async with replica(source, log) as handler:
        await handler.handle(events[:2], 0)
    async with replica(source, log) as restarted:
        assert await restarted.checkpoint() == 2
        await restarted.handle(events[2:], 2)
        assert positions(await restarted.dead_letters()) == {"a": [2, 4]}
    assert (journal(log, "a"), journal(log, "b")) == ([1], [1])


async def test_replays_that_race_with_new_events_keep_the_order() -> None:
    source, log, twin = Source(), MemoryLog("own"), MemoryTwin("source")
    await twin.create(1)
    source.poison = {"a:1"}
    async with replica(source, log) as follower, replica(source, log) as operator:
        following = asyncio.create_task(Cursor(twin, follower).run())
        await twin.publish(source.add("a:1", "b:1"))
        await until(lambda: follower.count == 1)
        source.poison.clear()
        for number in range(2, 40):
            await twin.publish(source.add(f"a:{number}"))
            dead = await operator.dead_letters()
            if first := dead.first("a"):
                await operator.replay(source.events[first.position - 1], OPERATOR)
        while first := (await operator.dead_letters()).first("a"):
            await operator.replay(source.events[first.position - 1], OPERATOR)
        await until(lambda: len(journal(log, "a")) + follower.count >= 39)
        while first := (await operator.dead_letters()).first("a"):
            await operator.replay(source.events[first.position - 1], OPERATOR)
        following.cancel()
    assert journal(log, "a") == list(range(1, 40))


async def test_one_units_defect_is_no_other_units() -> None:
    log = MemoryLog("own")
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:

        def broken(_transaction: object) -> None:
            raise Broken

        results = await asyncio.gather(
            writer.execute(broken),
            writer.execute(lambda tx: tx.do(JOURNAL, "a", Write(1))),
            return_exceptions=True,
        )
    assert isinstance(results[0], Broken)
    assert journal(log, "a") == [1]


async def test_a_message_that_is_no_event_stops_the_consumer_visibly_until_the_twin_is_whole() -> None:
    source, log, twin = Source(), MemoryLog("own"), MemoryTwin("source")
    await twin.create(1)
    await twin.publish(source.add("a:1", "a:2", "a:3"))
    assert twin.messages is not None
    whole = dict(twin.messages)
    twin.messages[2] = (whole[2][0], b"\xff\xff")
    async with replica(source, log) as handler:
        cursor = Cursor(twin, handler)
        following = asyncio.create_task(cursor.run())
        await until(lambda: "message 2" in (cursor.problem or ""))
        assert journal(log, "a") == [1]
        twin.messages[2] = whole[2]
        await until(lambda: journal(log, "a") == [1, 2, 3])
        await until(lambda: cursor.problem is None)
        following.cancel()
        assert handler.count == 0
