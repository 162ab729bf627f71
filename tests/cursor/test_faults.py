"""What a cursor and its dead-lettering make of outages, moved checkpoints and defects: whose fault it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
from structlog.testing import capture_logs
from structlog.types import EventDict

from tests.cursor.test_cursor import running
from tests.dead_letters.journal import Broken, Source, dead_lettering, journal, positions
from tests.waiting import until
from twinlog import Recorded, Schema, Unavailable, Writer
from twinlog.consume import Consumer, ConsumerWrapper, Progress
from twinlog.consume import cursor as cursor_module
from twinlog.consume import dead_lettering as dead_lettering_module
from twinlog.consume.dead_letters import DeadLettersChanged
from twinlog.consume.policies import PolicyConsumer
from twinlog.log.twin import Delivery, DeliveryLost
from twinlog.model.errors import CheckpointMoved, ConfigurationError
from twinlog.testing import ManualClock, MemoryLog, MemoryTwin
from twinlog.testing.internals import Cursor, RandomIds, SystemClock, TwinMissing


class Opened(MemoryTwin):
    """Counts the deliveries that are opened."""

    def __init__(self) -> None:
        super().__init__("source")
        self.opened: list[int] = []

    @asynccontextmanager
    async def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AsyncIterator[Delivery]:
        self.opened.append(after)
        async with super().deliver(after, types, routing_key) as delivery:
            yield delivery


class Careful:
    """A handler whose checkpoint stays where an event has no effect; refuses whoever expects it elsewhere."""

    name, types, routing_key = "careful", (), ""

    def __init__(self) -> None:
        self.kept = 0
        self.seen: list[int] = []
        self.failures: list[Exception] = []
        self.said: list[tuple[int, int]] = []

    async def checkpoint(self) -> int:
        return self.kept

    async def stored(self) -> int:
        return self.kept

    async def last_handled(self) -> None:
        return None

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        if self.failures:
            raise self.failures.pop(0)
        self.said.append((after, self.kept))
        if after != self.kept:
            raise CheckpointMoved(consumer=self.name, actual=self.kept, expected=after)
        self.seen += [event.position for event in events]
        if any(event.position % 4 == 0 for event in events):
            self.kept = events[-1].position
        return self.kept


def is_at(cursor: Cursor, position: int) -> bool:
    return cursor.position == position


async def test_a_cursor_expects_the_checkpoint_where_it_is_stored() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    cursor = Cursor(twin, handler)
    async with running(cursor):
        for number in range(1, 11):
            await twin.publish(source.add(f"a:{number}"))
            await until(partial(is_at, cursor, number))
    assert handler.seen == list(range(1, 11))
    assert handler.kept == 8
    assert twin.opened == [0], "it was never thrown back"
    async with running(Cursor(twin, handler)):
        await until(lambda: handler.seen[-2:] == [9, 10] and len(handler.seen) == 12)


async def test_a_cursor_goes_on_from_the_stored_checkpoint_when_it_has_moved() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    cursor = Cursor(twin, handler)
    with capture_logs() as said:
        async with running(cursor):
            await twin.publish(source.add("a:1", "a:2", "a:3", "a:4"))
            await until(lambda: cursor.position == 4)
            handler.kept = 6  # another replica was faster
            await twin.publish(source.add("a:5", "a:6", "a:7", "a:8"))
            await until(lambda: cursor.position == 8)
        assert cursor.problem is None
    assert handler.seen == [1, 2, 3, 4, 7, 8]
    assert twin.opened == [0, 6]
    assert {line["event"] for line in said} <= {"cursor.reopened"}


async def test_a_checkpoint_below_every_event_is_before_the_first() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    await twin.publish(source.add("a:1", "a:2", "a:3", "a:4"))
    handler.kept = -5
    cursor = Cursor(twin, handler)
    async with running(cursor):
        await until(partial(is_at, cursor, 4))
    assert (handler.seen, handler.kept, twin.opened) == ([1, 2, 3, 4], 4, [0])
    assert handler.said[0] == (-5, -5)


OUTAGES = [Unavailable("away"), TwinMissing(stream="source")]


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda error: type(error).__name__)
async def test_an_outage_is_told_as_one_and_is_over_when_the_events_are_handled(
    outage: Exception,
) -> None:
    source, twin, handler, clock = Source(), Opened(), Careful(), ManualClock()
    await twin.create(1)
    await twin.publish(source.add("a:1"))
    with capture_logs() as said:
        cursor = Cursor(twin, handler, clock=clock)
        async with running(cursor):
            await until(lambda: handler.seen == [1])
            assert cursor.dumped()["last_error_at"] is None
            clock.advance(timedelta(hours=1))
            handler.failures = [outage] * 2
            await twin.publish(source.add("a:2"))
            await until(lambda: cursor.problem == str(outage))
            await until(lambda: handler.seen[-1] == 2)
            await until(lambda: cursor.problem is None)
    assert (cursor.last_error, cursor.last_error_at) == (str(outage), clock.now())
    assert cursor.dumped()["last_error_at"] == clock.now().isoformat()
    assert [line["event"] for line in said if line["log_level"] == "error"] == []
    assert [line["event"] for line in said] == ["cursor.stopped", "cursor.following"], (
        "a delivery that is open says nothing of the store"
    )


async def test_an_outage_is_over_when_another_replica_has_handled_the_events() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    handler.failures = [Unavailable("away")] * 1_000
    cursor = Cursor(twin, handler)
    async with running(cursor):
        await twin.publish(source.add("a:1"))
        await until(lambda: cursor.problem == "away")
        handler.kept = 1
        await until(lambda: cursor.problem is None)
    assert handler.seen == []


async def test_a_delivery_that_is_lost_again_and_again_shows_and_is_no_defect() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    lost = DeliveryLost(stream="source", why="1 of its events are gone")
    handler.failures = [lost] * 6
    await twin.publish(source.add("a:1"))
    with capture_logs() as said:
        cursor = Cursor(twin, handler)
        async with running(cursor):
            await until(lambda: cursor.problem == str(lost))
            await until(lambda: cursor.problem is None and handler.seen == [1])
    assert [line["event"] for line in said if line["log_level"] == "error"] == []


class Twice:
    """Sends all again that it has sent, before what is new."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._sent: list[Recorded] = []

    @property
    def waiting(self) -> int:
        return self._delivery.waiting

    async def next(self, limit: int) -> Sequence[Recorded]:
        self._sent += await self._delivery.next(limit)
        return [*self._sent]


class Doubling(MemoryTwin):
    """Its deliveries send everything more than once."""

    @asynccontextmanager
    async def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AsyncIterator[Delivery]:
        async with super().deliver(after, types, routing_key) as delivery:
            yield Twice(delivery)


async def test_what_is_sent_again_is_handled_once() -> None:
    source, twin, handler = Source(), Doubling("source"), Careful()
    await twin.create(1)
    async with running(Cursor(twin, handler)):
        for count in (1, 2, 3):
            await twin.publish(source.add(f"a:{count}"))
            await until(lambda count=count: count in handler.seen)  # type: ignore[misc]
    assert handler.seen == [1, 2, 3]


class Silent(Opened):
    """Once it is open, nothing comes."""

    away, lost = False, 0

    @asynccontextmanager
    async def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AsyncIterator[Delivery]:
        if self.away:
            raise Unavailable("NATS is away")
        if self.lost:
            self.lost -= 1
            raise DeliveryLost(stream=self.name, why="it is silent")
        async with super().deliver(after, types, routing_key) as delivery:
            yield delivery


async def test_after_an_outage_a_cursor_is_healthy_though_nothing_comes() -> None:
    twin, handler = Silent(), Careful()
    await twin.create(1)
    twin.away = True
    cursor = Cursor(twin, handler)
    async with running(cursor):
        await until(lambda: cursor.problem == "NATS is away")
        twin.away = False
        await until(lambda: cursor.problem is None)
    assert twin.opened == [0]


@pytest.mark.parametrize("fault", [Unavailable("away"), Broken("a defect")], ids=["outage", "defect"])
async def test_what_was_held_up_by_an_event_that_a_restore_took_away_is_over_though_nothing_comes(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cursor_module, "_LOOK_SECONDS", 0.01)
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    handler.failures = [fault] * 100_000
    cursor = Cursor(twin, handler)
    async with running(cursor):
        await twin.publish(source.add("a:1"))
        await until(lambda: cursor.problem == str(fault))
        await twin.delete()
        await twin.create(1)
        await until(lambda: cursor.problem is None)
    assert handler.seen == [] and cursor.last_error


async def test_deliveries_that_were_lost_while_nothing_came_are_no_fault_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cursor_module, "_LOOK_SECONDS", 0.01)
    twin, handler = Silent(), Careful()
    await twin.create(1)
    twin.lost = 6
    cursor = Cursor(twin, handler)
    async with running(cursor):
        await until(lambda: bool(cursor.last_error))
        await until(lambda: cursor.problem is None and not twin.lost)


async def test_a_delivery_that_is_lost_now_and_then_is_no_fault() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    cursor = Cursor(twin, handler)
    async with running(cursor):
        for number in range(1, 9):
            handler.failures = [DeliveryLost(stream="source", why="1 of its events are gone")]
            await twin.publish(source.add(f"a:{number}"))
            await until(partial(is_at, cursor, number))
    assert (len(twin.opened), cursor.last_error) == (9, "")


class Slow(Careful):
    """Answers slowly where its checkpoint is, and is slow to tell of what it has handled."""

    def __init__(self, *, first_asked: bool) -> None:
        super().__init__()
        self.first_asked = first_asked
        self.looks, self.answered = 0, False
        self.answers, self.tells = asyncio.Event(), asyncio.Event()

    async def stored(self) -> int:
        self.looks += 1
        kept = self.kept
        await self.answers.wait()
        self.answered = True
        return kept if self.first_asked else self.kept

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        kept = await super().handle(events, after)
        await self.tells.wait()
        return kept


@pytest.mark.parametrize("is_told", [True, False], ids=["handled meanwhile", "being handled"])
async def test_a_checkpoint_that_moves_while_it_is_asked_for_ends_no_delivery(
    monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    monkeypatch.setattr(cursor_module, "_LOOK_SECONDS", 0.01)
    source, twin, handler = Source(), Opened(), Slow(first_asked=is_told)
    await twin.create(1)
    cursor = Cursor(twin, handler)
    async with running(cursor):
        await until(lambda: handler.looks == 1)
        await twin.publish(source.add("a:1", "a:2", "a:3", "a:4"))
        await until(lambda: handler.kept == 4)
        first, then = handler.tells, handler.answers
        if not is_told:
            first, then = then, first
        first.set()
        await until(lambda: cursor.position == 4 if is_told else handler.answered)
        then.set()
        await until(lambda: handler.looks > 1 and cursor.position == 4)
    assert (handler.seen, twin.opened) == ([1, 2, 3, 4], [0])


async def test_a_defect_is_told_as_one_and_is_not_over_before_the_event_is_handled() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    defect = Broken("a defect")
    handler.failures = [defect] * 4
    with capture_logs() as said:
        cursor = Cursor(twin, handler)
        async with running(cursor):
            await twin.publish(source.add("a:1"))
            problems: list[str | None] = []
            await until(lambda: problems.append(cursor.problem) or bool(handler.seen))  # type: ignore[func-returns-value]
            await until(lambda: cursor.problem is None)
    failed = problems[problems.index("a defect") :]
    assert None not in failed[:-1], "healthy in between, because the delivery was open"
    assert [line["exc_info"] for line in said if line["event"] == "cursor.failed"] == [defect]


async def test_what_says_itself_what_is_wrong_needs_no_traceback() -> None:
    source, twin, handler = Source(), Opened(), Careful()
    await twin.create(1)
    handler.failures = [ConfigurationError("the tables are another program's")] * 2
    with capture_logs() as said:
        async with running(Cursor(twin, handler)):
            await twin.publish(source.add("a:1"))
            await until(lambda: bool(handler.seen))
    told = [(line["event"], line.get("problem")) for line in said]
    assert ("cursor.stopped", "the tables are another program's") in told
    assert "cursor.failed" not in dict(told)


# --- dead-lettering ---


class Scripted(ConsumerWrapper):
    """Fails as the test says, attempt by attempt."""

    def __init__(self, inner: Consumer, *failures: Exception | None) -> None:
        super().__init__(inner)
        self.failures = list(failures)

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        if events and self.failures and (failure := self.failures.pop(0)):
            raise failure
        return await super().apply(events, progress)


BROKEN = Broken("cannot bear it")
NOT_THE_EVENTS_FAULT: list[Callable[[], Exception]] = [
    lambda: Unavailable("away"),
    lambda: CheckpointMoved(consumer="tests.source", actual=1, expected=0),
    lambda: ConfigurationError("another program's table"),
]


@asynccontextmanager
async def scripted(*failures: Exception | None) -> AsyncIterator[tuple[Source, MemoryLog, Scripted]]:
    source, log = Source(), MemoryLog("own")
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        yield source, log, Scripted(PolicyConsumer(source.policies(), writer, log, Schema()), *failures)


@pytest.fixture(autouse=True)
def lines() -> Iterator[list[EventDict]]:
    """What was logged."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_lettering_module, "RETRY_FIRST_SECONDS", 0.0)


@pytest.mark.parametrize("made", NOT_THE_EVENTS_FAULT, ids=["outage", "moved", "misconfigured"])
@pytest.mark.parametrize("before", [0, 1, 3, dead_lettering_module.RETRIES])
async def test_what_is_not_the_events_fault_is_the_cursors_and_uses_up_no_allowance(
    made: Callable[[], Exception], before: int
) -> None:
    """After so many failures of the event itself."""
    other = made()
    # Each time, as many more failures as are allowed in all: they would be too many if any were remembered.
    allowed = [BROKEN] * dead_lettering_module.RETRIES
    async with scripted(*[BROKEN] * before, other, *allowed) as (source, log, consumer):
        handler = dead_lettering(consumer, log)
        events = source.add("a:1")
        with pytest.raises(type(other)) as raised:
            await handler.handle(events, 0)
        assert raised.value is other
        assert (handler.count, await handler.checkpoint()) == (0, 0)
        assert await handler.handle(events, 0) == 1
        assert (handler.count, journal(log, "a")) == (0, [1])
        assert consumer.failures == []


async def test_an_event_is_set_aside_after_the_last_retry_that_is_allowed() -> None:
    failures = [BROKEN] * (dead_lettering_module.RETRIES + 1)
    async with scripted(*failures) as (source, log, consumer):
        handler = dead_lettering(consumer, log)
        assert await handler.handle(source.add("a:1"), 0) == 1
        dead = await handler.dead_letters()
        assert positions(dead) == {"a": [1]}
        first = dead.first("a")
        assert first
        assert (first.error_type, first.attempts) == ("Broken", 1 + dead_lettering_module.RETRIES)
        assert (consumer.failures, journal(log, "a")) == ([], [])


async def test_the_waits_between_retries_grow_to_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    async with scripted(*[BROKEN] * 6) as (source, log, consumer):
        monkeypatch.setattr(asyncio, "sleep", noted)
        assert await asyncio.wait_for(dead_lettering(consumer, log).handle(source.add("a:1"), 0), 60) == 1
        monkeypatch.undo()
    ceilings = [0.1, 0.2, 0.4, 0.8, 1.6]
    # The writer, which sets the event aside, may rest too: its rests are shorter.
    waits = [wait for wait in waits if wait >= 0.05]
    assert len(waits) == len(ceilings)
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, ceilings, strict=True))


async def test_all_failing_events_of_a_batch_share_one_allowance() -> None:
    async with scripted() as (source, log, consumer):
        source.poison = {"a:1", "b:1", "c:1"}
        handler = dead_lettering(consumer, log)
        assert await handler.handle(source.add("a:1", "b:1", "c:1", "d:1"), 0) == 4
        dead = await handler.dead_letters()
        attempts = [letter.attempts for _, letter in sorted(dead.letters())]
        assert sorted(attempts) == [1, 1, 1 + dead_lettering_module.RETRIES]
        assert journal(log, "d") == [1]


async def test_news_of_dead_letters_is_not_the_events_fault_either() -> None:
    async with scripted(BROKEN, DeadLettersChanged(consumer="tests.source")) as (source, log, consumer):
        handler = dead_lettering(consumer, log)
        assert await handler.handle(source.add("a:1"), 0) == 1
        assert (handler.count, journal(log, "a")) == (0, [1])
