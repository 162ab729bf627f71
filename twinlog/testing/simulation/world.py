"""A domain at work in a test: every service in this process, in memory, and time that only passes when asked to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from inspect import isasyncgen
from typing import Any, Self, TypeVar

from twinlog._aio.linger import Linger
from twinlog.consume import Consumer, ConsumerWrapper, Progress
from twinlog.consume.cursor import BATCH, Cursor
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.log.lease import ALWAYS_HELD
from twinlog.memory.keys import MemoryKeys
from twinlog.memory.log import MemoryLog
from twinlog.memory.twin import MemoryTwin
from twinlog.model.clock import Clock, Ids
from twinlog.model.errors import Overloaded
from twinlog.model.event import Recorded
from twinlog.model.forms import DURATION, refuse_value
from twinlog.service.environment import Environment
from twinlog.service.service import Service
from twinlog.service.wiring import servicers
from twinlog.testing.fakes import START, CountedIds, SkewedClock
from twinlog.testing.simulation.call import CallContext, method_of
from twinlog.testing.simulation.hosted import Hosted, is_wanted, survey
from twinlog.testing.simulation.loop import SimulatedLoop
from twinlog.testing.simulation.scene import Scene

T = TypeVar("T")

_LONGEST_SECONDS = 3600.0
"""In simulated time; whatever has not ended by then never will."""
_LOOK_EVERY_SECONDS = 0.01
_CALLS_AT_ONCE = 64
_LULL_SECONDS = 1.0
"""How long a world is at rest before the time in which nothing is due is skipped."""
_STUCK_SECONDS = 60.0
"""A timer that is overdue for so long cannot be fired, and is not waited for."""


class World(Scene):
    """The services of a domain, wired as their processes wire them. Use as a context manager, in a plain function.

    with World(HOTEL) as world:
        world.call("booking_svc", "BookRoom", BookRoomRequest(room_id="101"))
        world.settle()
        assert world.state(ROOM, "101").guest == "Ada"
    """

    def __init__(self, services: Sequence[Hosted]) -> None:
        self._loop = SimulatedLoop()  # type: ignore[abstract]
        super().__init__(survey(services), self._loop.time)
        self._ids = CountedIds()
        self._stack = AsyncExitStack()
        self._failure: BaseException | None = None
        self._members: dict[str, Member] = {}
        self._edges: dict[str, Sequence[object]] = {}

    def __enter__(self) -> Self:
        try:
            self.run(self._start())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self.run(self._stack.aclose())
        finally:
            self._loop.close()

    # --- what a test does ---

    def call(
        self, service: str, method: str, request: Any, *, metadata: Sequence[tuple[str, str]] = ()
    ) -> Any:
        """Calls a method of a service's servicer; returns its response, or raises its TwinlogError.

        For a streaming method it returns a list of all messages, once the stream has ended by itself.
        """
        return self.call_all(service, method, [request], metadata=metadata)[0]

    def call_all(
        self,
        service: str,
        method: str,
        requests: Sequence[Any],
        *,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> Sequence[Any]:
        """The same for many requests, some at a time, as patient clients send them; their responses, in order."""
        serve, places = self._method(service, method), asyncio.Semaphore(_CALLS_AT_ONCE)

        async def patiently(request: Any) -> Any:
            async with places:
                while True:
                    try:
                        answer = serve(request, CallContext(metadata))
                        return [each async for each in answer] if isasyncgen(answer) else await answer
                    except Overloaded:
                        await asyncio.sleep(_LOOK_EVERY_SECONDS)

        async def all_of_them() -> Sequence[Any]:
            return await asyncio.gather(*map(patiently, requests))

        return self.run(all_of_them())

    def settle(self, *, dead_letters: bool = False) -> None:
        """Returns once every event has had its effects, except those that wait for a service that is away.

        As much time passes as that takes. ``dead_letters``: whether events may be set aside meanwhile; if not, that
        raises AssertionError.
        """
        give_up = self._loop.time() + _LONGEST_SECONDS
        while waiting := self._waiting():
            if self._loop.time() > give_up:
                raise TimeoutError(f"after an hour of simulated time: {'; '.join(waiting)}")
            self._pass(_LOOK_EVERY_SECONDS)
        if not dead_letters:
            self._refuse_dead_letters()

    def advance(self, by: timedelta) -> None:
        """Lets time pass; whatever is due in it happens at its time. The end is settled.

        Where nothing is due, days pass at once: what looks around every ten minutes or more often is not run all
        the while.
        """
        refuse_value("advance", {"by": by}, {"by": DURATION})
        until = self._loop.time() + by.total_seconds()
        while (left := until - self._loop.time()) > 0:
            self._pass(min(left, _LULL_SECONDS))
            if not self._waiting():
                self._loop.skip(min([until, *self._due()]))
        self.settle()

    @contextmanager
    def away(self, *services: str) -> Iterator[None]:
        """Inside the block, these services handle no events, as if their consumers were down; they still answer
        calls."""
        for service in services:
            self._member(service).works.clear()
        try:
            yield
        finally:
            for service in services:
                self._member(service).works.set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the world, and gives its result."""
        task = self._loop.start(work)
        task.add_done_callback(lambda _done: self._loop.stop())
        give_up = self._loop.time() + _LONGEST_SECONDS
        while not task.done():
            if self._loop.time() >= give_up:
                raise TimeoutError("it did not end within an hour of simulated time")
            try:
                self._loop.run(give_up)
            except BaseException:
                work.close()
                raise
            self._check()
        return task.result()

    # --- how it is done ---

    async def _start(self) -> None:
        clock = SkewedClock(self._loop)
        for twin in self.twins.values():
            await twin.create(1)
        for name, hosted in self.survey.hosted.items():
            member = Member(hosted, self.logs, self.twins, clock, self._ids, self._crashed, self.keys)
            await self._stack.enter_async_context(member.running())
            self._members[name] = member
            self._edges[name] = servicers(hosted.wire(member, self.views[name]), name, hosted.wire)

    def _pass(self, seconds: float) -> None:
        until = self._loop.time() + seconds
        while self._loop.time() < until:
            self._loop.run(until)
            self._check()

    def _due(self) -> Iterator[float]:
        """When timers of the logs are due, as times of the loop."""
        now = self._loop.time()
        for log in self.logs.values():
            for timer in log.timers.values():
                due = (timer.due - START).total_seconds()
                if due > now - _STUCK_SECONDS:
                    yield max(due, now)

    def _waiting(self) -> list[str]:
        return [
            f"{follower.consumer.name} is at {follower.cursor.position}, {follower.wanted} is there"
            for member in self._members.values()
            for follower in member.followers
            if follower.waits()
        ]

    def _refuse_dead_letters(self) -> None:
        for log in self.logs.values():
            for stream, events in log.streams.items():
                if stream.type == DEAD_LETTERS.name:
                    told = " ".join(str(self.decoded(events[-1])).split())
                    raise AssertionError(f"{stream.id} has set an event aside: {told}")

    def _crashed(self, task: str, error: BaseException) -> None:
        error.add_note(f"in the task: {task}")
        self._failure = self._failure or error
        self._loop.stop()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _member(self, service: str) -> Member:
        if service not in self._members:
            raise LookupError(f"this world has no service {service}, only {', '.join(self._members)}")
        return self._members[service]

    def _method(self, service: str, name: str) -> Any:
        self._member(service)
        return method_of(self._edges[service], service, name)


class Gated(ConsumerWrapper):
    """A consumer that can be held up, as if its service were away."""

    def __init__(self, inner: Consumer, gate: asyncio.Event) -> None:
        super().__init__(inner)
        self._gate = gate

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        await self._gate.wait()
        return await super().apply(events, progress)


@dataclass
class Follower:
    """A cursor and the log that it reads."""

    log: MemoryLog
    consumer: Consumer
    cursor: Cursor
    gate: asyncio.Event
    examined: int = 0
    wanted: int = 0
    """The last event that it wants, of those examined."""

    def waits(self) -> bool:
        """Whether there is something that it has not handled and may handle."""
        if not self.gate.is_set():
            return False
        for event in self.log.events[self.examined :]:
            self.examined = event.position
            if is_wanted(self.consumer, event):
                self.wanted = event.position
        return self.wanted > self.cursor.position


class Member(Service):
    """A service over memory, whose consumers can be held up."""

    def __init__(
        self,
        hosted: Hosted,
        logs: Mapping[str, MemoryLog],
        twins: Mapping[str, MemoryTwin],
        clock: Clock,
        ids: Ids,
        on_crash: Callable[[str, BaseException], None],
        keys: MemoryKeys,
    ) -> None:
        self.works = asyncio.Event()
        """Cleared: its consumers handle nothing."""
        self.works.set()
        self.followers: list[Follower] = []
        self._logs = logs
        super().__init__(
            hosted.name,
            logs[hosted.spec.log],
            Environment(
                twin=twins.__getitem__,
                lease=lambda _work: ALWAYS_HELD,
                clock=clock,
                ids=ids,
                on_crash=on_crash,
                keys=keys,
            ),
            schema=hosted.spec.schema,
            aggregates=hosted.spec.aggregates,
            middleware=[lambda consumer: Gated(consumer, self.works)],
        )
        hosted.configure(self)

    def _feed(self, consumer: Consumer, linger: Linger, batch: int = BATCH) -> Cursor:
        cursor = super()._feed(consumer, linger, batch)
        self.followers.append(Follower(self._logs[consumer.source], consumer, cursor, self.works))
        return cursor
