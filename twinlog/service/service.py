"""A service that owns a log, put together over its ports: the same wiring in a process and under simulation.

Leaving the block undoes it in order: cursors → writer → relay.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

from twinlog._aio.linger import Linger
from twinlog._aio.tasks import Tasks
from twinlog._aio.watched import Watched
from twinlog.consume.cursor import Cursor, Handler
from twinlog.consume.dead_letter_office import Box, DeadLetterOffice
from twinlog.consume.policies import PolicyHandler
from twinlog.log.lease import Lease
from twinlog.log.ports import Log
from twinlog.log.relay import Relay
from twinlog.log.timers import Timers
from twinlog.log.twin import Twin
from twinlog.log.writer import Writer
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.clock import Clock, Ids
from twinlog.model.policies import Policies
from twinlog.model.schema import Schema

_DRAIN = 1.0


class ParkingHandler(Handler, Box, Protocol):
    """A cursor's handler that parks what it cannot handle."""


class Service:
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
            self.office.add(handler)
            self.attach(policies.log, handler, Linger(behind=self.writer.linger))

    def feed(self, log: str, handler: ParkingHandler, linger_seconds: float = 0.0) -> None:
        """Runs a handler over a log, with a pause after every batch that is not full, and shows what it parks."""
        self.office.add(handler)
        self.attach(log, handler, Linger(least=linger_seconds))

    def attach(self, log: str, handler: Handler, linger: Linger | None = None) -> None:
        """Runs a handler over a log."""
        cursor = Cursor(self._twin(log), handler, self._lease(handler.consumer), linger=linger)
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
