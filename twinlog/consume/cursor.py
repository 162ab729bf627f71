"""The cursor: takes a consumer through a log, by way of its twin.

Deliveries are disposable. The truth is the checkpoint in the consumer's own database, which advances by
compare-and-set in the transaction of the effects. So each effect happens exactly once, however often its event is
delivered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import structlog

from twinlog._aio.linger import Linger
from twinlog.log.lease import Lease
from twinlog.log.twin import DeliveryLost, Twin, TwinDamaged, TwinMissing
from twinlog.model.errors import CheckpointMoved, Unavailable
from twinlog.model.event import Recorded

BATCH = 500
"""The most events that are handled at once."""

_RETRY_FIRST, _RETRY_MOST = 0.05, 2.0


class Handler(Protocol):
    """What a cursor feeds: a consumer inside its :class:`~twinlog.consume.dead_lettering.DeadLettering`."""

    @property
    def name(self) -> str:
        """The consumer's."""
        ...

    @property
    def types(self) -> Sequence[str]:
        """Short names of the event types that are wanted; empty: all."""
        ...

    @property
    def routing_key(self) -> str:
        """The routing key that is wanted; empty: any."""
        ...

    async def checkpoint(self) -> int:
        """The position of the last event that was handled, as stored."""
        ...

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        """Handles events in order and moves the checkpoint from ``after`` to the last of them.

        Gives the checkpoint that is stored now; that may still be ``after`` where no event had an effect. What
        becomes of an event that fails is up to the handler. Raises CheckpointMoved where the checkpoint was not at
        ``after``: then nothing was done.
        """
        ...


class Cursor:
    """Feeds one handler until it is cancelled."""

    def __init__(
        self, twin: Twin, handler: Handler, lease: Lease | None = None, *, linger: Linger | None = None
    ) -> None:
        self._twin = twin
        self._handler = handler
        self._lease = lease
        self._linger = linger or Linger()
        self.position = 0
        """The last event that was seen."""
        self.problem: str | None = None
        """Current fault, or None while healthy."""
        self._faulty = False
        self._followed = False

    async def run(self) -> None:
        """Works through outages, lost deliveries and moved checkpoints; with a lease, while it is held."""
        if self._lease:
            await self._lease.hold(self._run_while_held)
        else:
            await self._run()

    async def _run_while_held(self) -> None:
        try:
            await self._run()
        finally:
            self.problem = None  # another replica goes on, and its troubles are not ours

    async def _run(self) -> None:
        delay = _RETRY_FIRST
        while True:
            before = self.position
            try:
                await self._follow()
            except (CheckpointMoved, DeliveryLost) as moved:
                structlog.get_logger().debug("cursor.reopened", consumer=self._handler.name, why=str(moved))
            except TwinMissing as missing:
                # At first, its relay may not have made it yet.
                self._report(str(missing), expected=not self._followed)
            except Unavailable as outage:
                self._report(str(outage))
            except TwinDamaged as damage:
                self._faulty = True
                self._report(str(damage))
            except Exception as error:
                # The handler does not set the event aside: no later one may overtake it, so it is tried again.
                self._faulty = True
                if str(error) != self.problem:
                    structlog.get_logger().exception("cursor.failed", consumer=self._handler.name)
                self._report(str(error) or type(error).__name__)
            delay = _RETRY_FIRST if self.position > before else min(delay * 2, _RETRY_MOST)
            await asyncio.sleep(delay)

    async def _follow(self) -> None:
        """Handles what comes until something goes wrong."""
        loop = asyncio.get_running_loop()
        stored = self.position = await self._handler.checkpoint()
        async with self._twin.deliver(stored, self._handler.types, self._handler.routing_key) as delivery:
            self._followed = True
            if not self._faulty:
                self._report(None)
            while True:
                events = await delivery.next(BATCH)
                if events[0].position <= self.position:
                    events = [event for event in events if event.position > self.position]
                if events:
                    began = loop.time()
                    stored = await self._handler.handle(events, stored)
                    self.position = events[-1].position
                    self._faulty = False
                    self._report(None)
                    await self._linger.wait(began, delivery.waiting, BATCH)

    def _report(self, problem: str | None, *, expected: bool = False) -> None:
        if problem != self.problem:
            log = structlog.get_logger()
            if problem and expected:
                log.info("cursor.waiting", consumer=self._handler.name, why=problem)
            elif problem:
                log.warning("cursor.stopped", consumer=self._handler.name, problem=problem)
            else:
                log.info("cursor.following", consumer=self._handler.name, position=self.position)
        self.problem = problem
