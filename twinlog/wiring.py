"""A service that owns a log, put together over its ports: the same wiring in a process and under simulation.

Leaving the block undoes it in order: cursors → writer → relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from twinlog.cursor import Cursor, Handler
from twinlog.dead_letter_office import Box, DeadLetterOffice
from twinlog.decider import AnyAggregate
from twinlog.lease import Lease
from twinlog.log import Log
from twinlog.pace import Pace
from twinlog.policies import Policies, PolicyHandler
from twinlog.ports import Clock, Ids
from twinlog.relay import Relay
from twinlog.rpc.health import Watched
from twinlog.schema import Schema
from twinlog.tasks import Tasks
from twinlog.timers import Timers
from twinlog.twin import Twin
from twinlog.writer import Writer

_DRAIN = 1.0


class ParkingHandler(Handler, Box, Protocol):
    """A cursor's handler that parks what it cannot handle."""


class Wiring:
    """What a service wires its own parts to."""

    def __init__(
        self,
        name: str,
        log: Log,
        *,
        twin: Callable[[str], Twin],
        lease: Callable[[str], Lease],
        clock: Clock,
        ids: Ids,
        on_crash: Callable[[str, BaseException], None],
    ) -> None:
        """``name``: the service's; goes on events. ``twin``: the stream of a log, by the log's name. ``lease``: the
        right to do a piece of work that one replica is enough for. ``on_crash`` is told of a task that raises."""
        self.name = name
        self.log = log
        self.clock = clock
        self.ids = ids
        self.schema = Schema()
        self.office = DeadLetterOffice(log)
        self.watched: list[Watched] = []
        """Parts whose problems make the service NOT_SERVING."""
        self._twin = twin
        self._lease = lease
        self.relay = Relay(log, twin(log.name), lease("relay"))
        self.writer = Writer(log, clock=clock, ids=ids, on_commit=self.relay.offer)
        self._copying = Tasks(on_crash)
        self._tasks = Tasks(on_crash)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Copies and writes inside the block, and runs what is wired there."""
        async with self._copying:
            self._copying.start("relay", self.relay.run())
            async with self.writer:
                async with self._tasks:
                    self._tasks.start("dead letters", self.office.run())
                    yield
                await self._drain()

    def follow(self, *tables: Policies) -> None:
        """Runs policies over the logs that they listen to."""
        for policies in tables:
            handler = PolicyHandler(policies, self.writer, self.log, self.schema)
            self.feed(policies.log, handler, Pace(behind=self.writer.pace))

    def feed(self, log: str, handler: ParkingHandler, pace: Pace | None = None) -> None:
        """Runs a handler over a log, and shows what it parks."""
        self.office.add(handler)
        self.attach(log, handler, pace)

    def attach(self, log: str, handler: Handler, pace: Pace | None = None) -> None:
        """Runs a handler over a log."""
        cursor = Cursor(self._twin(log), handler, self._lease(handler.consumer), pace=pace)
        self.watched.append(cursor)
        self._tasks.start(handler.consumer, cursor.run())

    def wake(self, *aggregates: AnyAggregate) -> None:
        """Fires the timers of these aggregates."""
        lease = self._lease("timers")
        timers = Timers(self.log, self.writer, aggregates, clock=self.clock, lease=lease, actor=self.name)
        self._tasks.start("timers", timers.run())

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task of the service's own, as long as its cursors."""
        self._tasks.start(name, work)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(_DRAIN):
                await self.writer.drain()
        except TimeoutError:
            return  # the store is away: what waits is refused as UNAVAILABLE
        if self.relay.position is not None:
            await self.relay.drain(_DRAIN)
