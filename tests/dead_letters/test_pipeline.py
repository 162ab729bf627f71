"""What a consumer is wrapped in: dead-lettering that costs nothing while there are none, and middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from structlog.types import EventDict

from tests.dead_letters.journal import CONSUMER, Source, dead_lettering, journal, positions, replica
from tests.memory_service import memory_service
from tests.waiting import until
from twinlog import Log, Projection, Recorded, Schema, Service, StreamId, Unavailable, Writer
from twinlog.consume import Consumer, ConsumerWrapper, Middleware, Progress
from twinlog.consume import dead_lettering as dead_lettering_module
from twinlog.consume.policies import PolicyConsumer
from twinlog.log.ports import ReadRequest, Snapshot, StreamSlice
from twinlog.testing import MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import DEAD_LETTERS, RandomIds, StateCodec, SystemClock

STREAM = StreamId(DEAD_LETTERS.name, CONSUMER)
KINDS = ("policies", "view")


class Noted(MemoryLog):
    """A log that notes which events of dead letters are read."""

    def __init__(self) -> None:
        super().__init__("own")
        self.loads: list[int] = []
        """How many events each look at the dead letters gave."""

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        slices = await super().load(wanted)
        self.loads += [
            len(found.events) for want, found in zip(wanted, slices, strict=True) if want.stream == STREAM
        ]
        return slices


class Interrupted(ConsumerWrapper):
    """While its checkpoint is asked for, something else happens."""

    def __init__(self, inner: Consumer, meanwhile: Callable[[], Awaitable[object]]) -> None:
        super().__init__(inner)
        self._meanwhile = [meanwhile]

    async def checkpoint(self) -> int:
        while self._meanwhile:
            await self._meanwhile.pop()()
        return await super().checkpoint()


@pytest.fixture(params=KINDS)
async def consumers(
    request: pytest.FixtureRequest,
) -> AsyncIterator[tuple[Source, Noted, Callable[[], Consumer]]]:
    """A source, the consumer's own log, and a maker of replicas."""
    source, log = Source(), Noted()
    views = MemoryViews(log)
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:

        def make() -> Consumer:
            if request.param == "policies":
                return PolicyConsumer(source.policies(), writer, log, Schema())
            return Projection(CONSUMER, [source.view()], views, schema=Schema())

        yield source, log, make


Consumers = tuple[Source, Noted, Callable[[], Consumer]]


async def test_while_there_are_none_dead_letters_are_not_read(consumers: Consumers) -> None:
    source, log, make = consumers
    handler = dead_lettering(make(), log)
    at = await handler.checkpoint()
    for number in range(3):
        at = await handler.handle(source.add(f"a:{number}", f"b:{number}"), at)
    assert log.loads == [0]


async def test_what_is_set_aside_on_the_way_to_the_checkpoint_is_known(consumers: Consumers) -> None:
    source, log, make = consumers
    source.poison = {"a:1"}
    [first] = source.add("a:1")
    other = dead_lettering(make(), log)
    one = dead_lettering(Interrupted(make(), lambda: other.handle([first], 0)), log)
    at = await one.checkpoint()
    assert at == 1
    await one.handle(source.add("a:2"), at)
    assert positions(await one.dead_letters()) == {"a": [1, 2]}


async def test_after_a_restart_dead_letters_are_read_from_their_snapshot(consumers: Consumers) -> None:
    source, log, make = consumers
    source.poison = {"a:1", "b:1"}
    before = dead_lettering(make(), log)
    await before.handle(source.add("a:1", "a:2", "b:1"), 0)
    known, codec = await before.dead_letters(), StateCodec(DEAD_LETTERS)
    await log.save([Snapshot(STREAM, known.version, 3, codec.schema, codec.encode(known))])
    await before.handle(source.add("b:2"), 3)
    log.loads.clear()

    restarted = dead_lettering(make(), log)
    assert await restarted.dead_letters() == await before.dead_letters()
    assert log.loads[0] == 1


async def test_an_operator_does_not_wait_for_the_end_of_an_outage(
    consumers: Consumers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_lettering_module, "_OPERATOR_WAIT_SECONDS", 0.01)
    source, log, make = consumers
    begun, over = asyncio.Event(), asyncio.Event()

    class Waits(ConsumerWrapper):
        async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
            begun.set()
            await over.wait()
            return await super().apply(events, progress)

    handler = dead_lettering(Waits(make()), log)
    handling = asyncio.create_task(handler.handle(source.add("a:1"), 0))
    await begun.wait()
    with pytest.raises(Unavailable):
        await handler.dead_letters()
    over.set()
    assert await handling == 1
    assert positions(await handler.dead_letters()) == {}


def counting(name: str, calls: list[str]) -> Middleware:
    """Notes what is applied, and whether it failed."""

    class Counting(ConsumerWrapper):
        async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
            calls.append(f"{name} begins {len(events)}")
            try:
                return await super().apply(events, progress)
            finally:
                calls.append(f"{name} ends")

    return Counting


@asynccontextmanager
async def service(log: Log, twin: MemoryTwin, *middleware: Middleware) -> AsyncIterator[Service]:
    """A service over memory, whose own twin is nobody's."""
    own = MemoryTwin(log.name)
    await own.create(1)
    made = memory_service(
        "tests", log, lambda name: twin if name == twin.name else own, middleware=middleware
    )
    async with made.running():
        yield made


async def test_a_services_middleware_goes_around_every_consumer_the_first_outermost(
    lines: list[EventDict],
) -> None:
    calls: list[str] = []
    source, log, twin = Source(), MemoryLog("own"), MemoryTwin("source")
    await twin.create(1)
    await twin.publish(source.add("a:1"))
    async with service(log, twin, counting("outer", calls), counting("inner", calls)) as running:
        running.subscribe(source.policies())
        await until(lambda: len(calls) == 4)
        assert calls == ["outer begins 1", "inner begins 1", "inner ends", "outer ends"]

        source.poison = {"a:2"}
        await twin.publish(source.add("a:2"))
        await until(lambda: running.dead_letters.counts() == {CONSUMER: 1})
    assert journal(log, "a") == [1]
    assert calls[-4] == "outer begins 0", "what sets an event aside has no effects besides"
    assert [line["event_address"] for line in lines if line["event"] == "dead_letter.parked"] == ["source/2"]


async def test_policies_and_projections_are_subscribed_alike() -> None:
    source, log, twin = Source(), MemoryLog("own"), MemoryTwin("source")
    views = MemoryViews(log)
    await twin.create(1)
    await twin.publish(source.add("a:1", "b:1"))
    async with service(log, twin) as running:
        running.subscribe(
            source.policies(),
            Projection("tests.view", [source.view()], views, schema=Schema(), source="source"),
        )
        await until(lambda: views.positions.get("tests.view") == 2 and log.checkpoints.get(CONSUMER) == 2)
    assert journal(log, "a") == [1]
    assert views.tables["journal"].keys() == {"a", "b"}


async def test_what_became_of_an_event_is_logged_once_it_is_recorded(lines: list[EventDict]) -> None:
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1"}
    async with replica(source, log) as handler:
        [event] = source.add("a:1")
        await handler.handle([event], 0)
    said = [line for line in lines if line["event"].startswith("dead_letter.")]
    assert [(line["event"], line["event_address"], line["error"]) for line in said] == [
        ("dead_letter.parked", "source/1", "cannot bear a:1")
    ]
    assert isinstance(said[0]["exc_info"], Exception)
