"""The cursor: takes a consumer through a log, by way of its twin.

Deliveries are disposable. The truth is the checkpoint in the consumer's own database, which advances by
compare-and-set in the transaction of the effects. So each effect happens exactly once, however often its event is
delivered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog

from twinlog._aio.linger import Linger
from twinlog._aio.retrying import Randomness, Retrying
from twinlog._aio.standing import seconds_since
from twinlog.log.lease import ALWAYS_HELD, HELD_UP, Lease
from twinlog.log.ports import Handled
from twinlog.log.system import SystemClock
from twinlog.log.twin import (
    CheckpointForked,
    Delivery,
    DeliveryLost,
    StreamBehind,
    Twin,
    TwinDamaged,
    TwinMissing,
)
from twinlog.log.wire import event_id_of
from twinlog.model.clock import Clock
from twinlog.model.errors import CheckpointMoved, ConfigurationError, Unavailable
from twinlog.model.event import Recorded

BATCH = 500
"""The most events that are handled at once, unless a consumer wants fewer."""
_STALLED_SECONDS = 10.0
"""Longer than the retries of an event that fails."""
_OUTAGES = (Unavailable, TwinMissing)
_TOLD = (*_OUTAGES, TwinDamaged, CheckpointMoved, DeliveryLost, ConfigurationError)
"""What says itself what is wrong, so that no traceback is needed."""
_LOOK_SECONDS = 2.0
"""How often a cursor without events looks whether its checkpoint is still where it was."""
_QUIET_LOOKS = 5
"""After so many looks at an open delivery that gives nothing, nothing is held up: what was would have come."""
_REOPENED_IN_VAIN = 4
"""How often a delivery is lost without any progress before that is a fault."""


class Handler(Protocol):
    """What a cursor feeds: a consumer inside its :class:`~twinlog.consume.dead_lettering.DeadLettering`."""

    @property
    def name(self) -> str:
        """The consumer's."""

    @property
    def types(self) -> Sequence[str]:
        """Short names of the event types that are wanted; empty: all."""

    @property
    def routing_key(self) -> str:
        """The routing key that is wanted; empty: any."""

    async def checkpoint(self) -> int:
        """The position of the last event that was handled, as stored."""

    async def last_handled(self) -> Handled | None:
        """An event that was handled; None where none is known."""

    async def stored(self) -> int:
        """Where the checkpoint is now; nothing is brought up to date."""

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        """Handles events in order and moves the checkpoint from ``after`` to the last of them.

        Gives the checkpoint that is stored now; that may still be ``after`` where no event had an effect. What
        becomes of an event that fails is up to the handler. Raises CheckpointMoved where the checkpoint was not at
        ``after``: then nothing was done.
        """


class Cursor:
    """Feeds one handler until it is cancelled."""

    def __init__(
        self,
        twin: Twin,
        handler: Handler,
        lease: Lease = ALWAYS_HELD,
        *,
        linger: Linger | None = None,
        batch: int = BATCH,
        randomness: Randomness = random,
        clock: Clock | None = None,
    ) -> None:
        """``batch``: the most events that are handled at once. ``clock`` tells when a fault was seen."""
        self._twin = twin
        self._handler = handler
        self._lease = lease
        self._linger = linger or Linger()
        self._batch = batch
        self._clock = clock or SystemClock()
        self.position = 0
        """The last event that was seen."""
        self._retrying = Retrying(
            say_failing=self._say_stopped, say_working=self._say_following, randomness=randomness
        )
        self.last_error_at: datetime | None = None
        """When the newest fault was seen last; None where there was none."""
        self._stored = 0
        self._faulty = False
        self._held_up_at: int | None = None
        """The checkpoint behind which events could not be handled, until they are or it has moved."""
        self._followed = False
        self._began: float | None = None
        """Since when events are being handled, by the loop's time; None while the cursor waits for some."""
        self._reopened = 0  # since the last progress

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy. Events that take longer than 10 s are one: the store may be locked."""
        return self._retrying.problem or self._stalled()

    @property
    def last_error(self) -> str:
        """The newest fault, also where it has passed; empty where there was none."""
        return self._retrying.last

    def dumped(self) -> Mapping[str, Any]:
        """What a dump of the process says of it: positions, and for how long events are being handled."""
        return {
            "consumer": self._handler.name,
            "position": self.position,
            "checkpoint": self._stored,
            "handling_seconds": seconds_since(self._began),
            "problem": self.problem,
            "last_error": self.last_error or None,
            "last_error_at": self.last_error_at.isoformat() if self.last_error_at else None,
        }

    def _stalled(self) -> str | None:
        if self._began is None:
            return None
        seconds = asyncio.get_running_loop().time() - self._began
        if seconds < _STALLED_SECONDS:
            return None
        return f"consumer {self._handler.name}: the oldest events have been handled for {seconds:.0f} s; {HELD_UP}"

    async def run(self) -> None:
        """Follows the log while the lease is held; survives outages, lost deliveries and moved checkpoints."""
        await self._lease.hold(self._run_while_held)

    async def _run_while_held(self) -> None:
        try:
            while True:
                try:
                    await self._follow()
                except (CheckpointMoved, DeliveryLost) as moved:
                    structlog.get_logger().debug(
                        "cursor.reopened", consumer=self._handler.name, why=str(moved)
                    )
                    self._reopened += 1
                    if self._reopened > _REOPENED_IN_VAIN:
                        self._faulty = True
                        self._failed(moved)
                except Exception as error:
                    # Later events must not overtake one that its handler fails on, so that one is tried again.
                    self._faulty |= not isinstance(error, _OUTAGES)
                    self._failed(error)
                await self._retrying.pause()
        finally:
            self._retrying.reset()  # another replica takes over, and its faults are not ours
            self._held_up_at = None

    def _failed(self, error: Exception) -> None:
        self.last_error_at = self._clock.now()
        self._retrying.failed(error)

    async def _follow(self) -> None:
        """Handles what comes until something goes wrong."""
        self._stored = await self._handler.checkpoint()
        self.position = max(self._stored, 0)  # somebody may have set it below the first event
        wanted = self._handler.types, self._handler.routing_key
        async with self._twin.deliver(self.position, *wanted) as delivery:
            self._followed = True
            await self._check(self._stored)
            if not self._faulty and self._held_up_at != self._stored:
                self._retrying.healed()
            try:
                async with asyncio.timeout(None) as until_moved:
                    watching = asyncio.create_task(self._watch(until_moved))
                    try:
                        await self._handle(delivery)
                    finally:
                        watching.cancel()
            except TimeoutError as error:
                if not until_moved.expired():
                    raise
                raise CheckpointMoved(
                    consumer=self._handler.name, actual="another position", expected=self._stored
                ) from error

    async def _handle(self, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        while True:
            events = await delivery.next(self._batch)
            if events[0].position <= self.position:
                events = [event for event in events if event.position > self.position]
            if events:
                self._began = began = loop.time()
                try:
                    self._stored = await self._handler.handle(events, self._stored)
                except (CheckpointMoved, DeliveryLost):
                    raise
                except Exception:  # a locked table, say: that a delivery can be opened says nothing of it
                    self._held_up_at = self._stored
                    raise
                finally:
                    self._began = None
                self.position = events[-1].position
                self._faulty, self._held_up_at = False, None
                self._reopened = 0
                self._retrying.succeeded()
                await self._linger.wait(began, delivery.waiting, self._batch)

    async def _watch(self, until_moved: asyncio.Timeout) -> None:
        """Ends a delivery that waits for events beyond a checkpoint that was set back, as by a restore in place."""
        quiet = 0
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._began is not None:
                quiet = 0
                continue
            before = self._stored, self.position
            try:
                stored = await self._handler.stored()
            except Unavailable:
                continue
            except Exception:
                stored = -1  # a new delivery begins with the same question, and reports the error
            if self._began is not None or before != (self._stored, self.position):
                quiet = 0
                continue
            if stored != self._stored:
                until_moved.reschedule(asyncio.get_running_loop().time())
                return
            quiet += 1
            if quiet == _QUIET_LOOKS:
                self._nothing_is_held_up()

    def _nothing_is_held_up(self) -> None:
        """Notes that no fault is left, also where no event comes that shows it: the log may be idle, or restored."""
        self._faulty, self._held_up_at, self._reopened = False, None, 0
        self._retrying.healed()

    async def _check(self, checkpoint: int) -> None:
        """Raises CheckpointForked where the stream has another event in the place of one that was handled.

        Raises StreamBehind while that is not to be seen: a stream that was lost is filled again from its log.
        """
        handled = await self._handler.last_handled()
        known = handled if handled and handled.position <= checkpoint else None
        position = known.position if known else checkpoint
        if position <= 0:
            return
        message = await self._twin.message(position)
        if message is None:
            if behind := await self._is_short_of(checkpoint):
                raise behind
            if not position < (await self._twin.state()).first <= checkpoint + 1:
                raise self._behind(f"has lost message {position}", position)
            return  # trimmed up to what was handled: what comes is all there, and there is nothing to compare with
        if position < checkpoint and (behind := await self._is_short_of(checkpoint)):
            raise behind  # somebody has set the checkpoint beyond every event
        if known and event_id_of(message, position) not in (None, known.event_id):
            raise CheckpointForked(consumer=self._handler.name, stream=self._twin.name, position=position)

    async def _is_short_of(self, position: int) -> StreamBehind | None:
        last = (await self._twin.state()).last
        return self._behind(f"ends with {last}", position) if last < position else None

    def _behind(self, why: str, position: int) -> StreamBehind:
        return StreamBehind(stream=self._twin.name, why=why, consumer=self._handler.name, position=position)

    def _say_stopped(self, error: Exception) -> None:
        log, consumer = structlog.get_logger(), self._handler.name
        if isinstance(error, TwinMissing) and not self._followed:  # its relay may not have created it yet
            log.info("cursor.waiting", consumer=consumer, why=str(error))
            return
        if not isinstance(error, _TOLD):
            log.error("cursor.failed", consumer=consumer, exc_info=error)
        log.warning("cursor.stopped", consumer=consumer, problem=self.problem)

    def _say_following(self) -> None:
        structlog.get_logger().info("cursor.following", consumer=self._handler.name, position=self.position)
