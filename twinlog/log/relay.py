"""The relay: copies a log into its twin. It decides nothing: when the twin refuses, it asks how far the twin is.

The stream's last sequence is the only checkpoint. Two relays, a zombie, a retry after a lost reply: the server
refuses whatever does not follow its last sequence. The relay restores what the twin lost under the same sequences.
A twin that is ahead of its log, or that holds other events, is left alone and reported.

The relay knows the id of the event that the twin holds at its position, and copies only what follows that event in the
log: the id comes with events from memory, and a read of the log begins one event early (:mod:`twinlog.log.lineage`).
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import say
from twinlog.log.lease import ALWAYS_HELD, Lease
from twinlog.log.lineage import NOTHING, Common, compare, refuse_astray, trimmed
from twinlog.log.ports import Log
from twinlog.log.standby import Standby
from twinlog.log.twin import LogForked, LogGapped, Trimming, Twin, TwinMissing, TwinState, WrongLastSequence
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded

BATCH = 500
"""Events published at once."""

_MAX_PENDING = 20_000
_POLL_FIRST_SECONDS, _POLL_CAP_SECONDS = 0.1, 1.0
"""How often the log is read while no events are offered: other processes notify, but a notification may be lost."""
_STILL_COPYING_SECONDS = 0.02
"""How long a copying replica waits before it checks again that it still copies."""
_INSPECT_SECONDS = 1.0
_NOTIFIED_TIMEOUT_SECONDS = 60.0
_DRAIN_TIMEOUT_SECONDS = 5.0


class Relay:
    """Copies one log; the process that commits offers its events from memory."""

    def __init__(
        self,
        log: Log,
        twin: Twin,
        lease: Lease = ALWAYS_HELD,
        *,
        on_fork: Callable[[], None] = lambda: None,
        randomness: Randomness = random,
    ) -> None:
        """``on_fork`` is called when log and twin turn out to tell two histories: no more must be appended."""
        self._log = log
        self._on_fork = on_fork
        self._twin = twin
        self._lease = lease
        self._standby = Standby(log, twin, lease)
        self._pending: deque[tuple[Recorded, UUID | None]] = deque()  # each with the id of the event before
        self._offered = 0
        self._forked = False
        self._wake = asyncio.Event()
        self._behind = True  # the log may have events that are not in _pending
        self._progress = asyncio.Condition()
        self._relaying = False
        self.position: int | None = None
        """The last event that the twin is known to hold; None while that is unknown."""
        self._event_id: UUID | None = None  # of that event
        self._retrying = Retrying(
            say_failing=say.error("relay.stopped", log=log.name),
            say_working=self._say_copying,
            on=(Exception,),  # an event that cannot be copied holds up those behind it, and no command
            randomness=randomness,
        )

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem or self._standby.problem

    def dumped(self) -> Mapping[str, Any]:
        """What a dump of the process says of it."""
        return {
            "log": self._log.name,
            "here": self._relaying,
            "position": self.position,
            "to_copy": len(self._pending),
            "reads_log": self._behind,
            "problem": self.problem,
        }

    def offer(self, events: Sequence[Recorded], before: UUID | None = None) -> None:
        """Takes events right after their commit, which spares reading them again.

        ``before``: the id of the event that they follow in the log; None: unknown, so that they are read all the same.
        """
        went_back = bool(events) and events[0].position <= self._offered
        if self._relaying:
            for event in events:
                self._pending.append((event, before))
                before = event.event_id
            self._offered = events[-1].position if events else self._offered
            if went_back or len(self._pending) > _MAX_PENDING:
                self._pending.clear()
                self._behind = True
        else:
            self._behind = True
        self._wake.set()

    async def run(self) -> None:
        """Copies endlessly, while the lease is held."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._notify_when_idle())
            tasks.create_task(self._standby.run(lambda: self._relaying))
            await self._lease.hold(self._copy_while_held)

    async def drain(self, timeout_seconds: float = _DRAIN_TIMEOUT_SECONDS) -> None:
        """Returns when everything committed so far is in the twin, or after ``timeout_seconds``."""
        try:
            async with asyncio.timeout(timeout_seconds):
                head = await self._log.head()
                self._look_at_log()
                async with self._progress:
                    await self._progress.wait_for(lambda: (self.position or 0) >= head)
        except (TimeoutError, Unavailable):
            structlog.get_logger().warning("relay.not_drained", log=self._log.name, position=self.position)

    async def _listen(self) -> None:
        """Reads the log when another process of this service has committed."""
        while True:
            await self._twin.notified(_NOTIFIED_TIMEOUT_SECONDS)
            if self._relaying:  # otherwise the notification is this replica's own, or for another
                self._look_at_log()

    async def _notify_when_idle(self) -> None:
        """Notifies the copying replica when this one has committed but does not copy."""
        while True:
            await self._wake.wait()
            if self._relaying:
                await asyncio.sleep(_STILL_COPYING_SECONDS)
                continue
            self._wake.clear()
            await self._twin.notify()

    async def _copy_while_held(self) -> None:
        self._relaying, self._behind, self.position, self._offered = True, True, None, 0
        self._forked = False  # another replica may have seen the last fork end: the next one is new
        try:
            await self._retrying(self._copy)
        finally:
            self._relaying = False
            self._retrying.reset()  # another replica takes over, and its faults are not ours
            self._pending.clear()

    async def _copy(self) -> None:
        """Copies until something fails."""
        try:
            await self._copy_from(await self._agree())
        except LogForked:
            if not self._forked:
                await self._log.begin_era()  # whatever any replica knows of the log, it compares first
                self._forked = True
            self._on_fork()
            raise
        finally:
            self.position = None

    async def _copy_from(self, common: Common) -> None:
        await self._advance(*common)
        self._forked = False
        loop = asyncio.get_running_loop()
        poll, inspected = _POLL_FIRST_SECONDS, loop.time()
        while True:
            events = await self._next()
            if events:
                poll = _POLL_FIRST_SECONDS
                await self._publish(events)
            elif not await self._wait(poll):
                self._behind = True
                poll = min(poll * 2, _POLL_CAP_SECONDS)
            self._retrying.succeeded()
            if loop.time() - inspected >= _INSPECT_SECONDS:
                await self._inspect_twin()
                inspected = loop.time()

    async def _publish(self, events: Sequence[Recorded]) -> None:
        try:
            await self._twin.publish(events)
        except WrongLastSequence as error:
            before, agreed = self.position, await self._agree()
            if agreed.position == before:  # nobody else stored it: the twin takes no more
                raise Unavailable(str(error)) from error
            await self._advance(*agreed)
        else:
            await self._advance(events[-1].position, events[-1].event_id)

    async def _next(self) -> Sequence[Recorded]:
        """The next events: from memory if they are there, otherwise from the log if it may have more."""
        assert self.position is not None
        self._wake.clear()
        while self._pending and self._pending[0][0].position <= self.position:
            event, _ = self._pending.popleft()
            self._behind |= event.position == self.position and event.event_id != self._event_id
        if events := self._handed_over(self.position):
            return events
        if not (self._pending or self._behind):
            return ()
        self._behind = False
        read = await self._read(self.position)
        self._behind |= bool(read)
        return read

    async def _read(self, position: int) -> Sequence[Recorded]:
        """The next events of the log. Raises LogForked where it no longer has the one before."""
        if not position:
            return self._gapless(0, await self._log.read(0, BATCH))
        read = await self._log.read(position - 1, BATCH + 1)
        if not read or read[0].event_id != self._event_id:
            await self._agree()  # raises, unless the twin was made again
            raise Unavailable(f"log {self._log.name} has another event {position}")
        return self._gapless(position, read[1:])

    def _gapless(self, after: int, events: Sequence[Recorded]) -> Sequence[Recorded]:
        """Raises LogGapped where the log has lost events that it has others behind."""
        for position, event in enumerate(events, after + 1):
            if event.position != position:
                raise LogGapped(log=self._log.name, first=position, last=event.position - 1)
        return events

    def _handed_over(self, after: int) -> list[Recorded]:
        """Offered events, each the next of the log, up to the first gap: another process may have committed there."""
        events: list[Recorded] = []
        before = self._event_id
        while self._pending and len(events) < BATCH:
            event, follows = self._pending[0]
            if event.position != after + len(events) + 1 or follows != before:
                break
            events.append(event)
            before = event.event_id
            self._pending.popleft()
        return events

    def _look_at_log(self) -> None:
        """Has the log read: it may hold events that were never offered."""
        self._behind = True
        self._wake.set()

    async def _wait(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        return False

    async def _advance(self, position: int, event_id: UUID | None) -> None:
        async with self._progress:
            self.position, self._event_id = position, event_id
            self._progress.notify_all()

    async def _agree(self) -> Common:
        """Where to continue from: the twin's last event, once the twin is known to mirror the log."""
        self._behind = True
        await refuse_astray(self._log)
        before = await trimmed(self._log)
        try:
            state = await self._twin.state()
        except TwinMissing:
            await self._twin.create(before + 1)
            structlog.get_logger().info("relay.twin_created", log=self._log.name)
            state = await self._twin.state()
        common = await compare(self._log, self._twin, state)
        await self._twin.claim()
        if before and state.last == before:  # made for what follows, and empty still
            return await self._beginning(before)
        if state.first > before + 1 or state.holes or common.position < state.last:
            await self._rebuild(state, before)
            return await self._beginning(before)
        return common

    async def _beginning(self, position: int) -> Common:
        """Where an empty stream continues from that begins after a position."""
        for event in await self._log.read(position - 1, 1) if position else ():
            return Common(event.position, event.event_id)
        return NOTHING

    async def _inspect_twin(self) -> None:
        """Repairs a twin that lost messages while nothing was published: cursors may be waiting for them.

        Raises HeadAstray also where no command would notice it soon.
        """
        await refuse_astray(self._log)
        state, before = await self._twin.state(), await trimmed(self._log)
        if state.last != self.position or state.first > before + 1 or state.holes:
            await self._advance(*await self._agree())
        elif state.first <= before < state.last and isinstance(self._twin, Trimming):
            await self._twin.trim(before)
            structlog.get_logger().info("relay.twin_trimmed", log=self._log.name, upto=before)

    async def _rebuild(self, state: TwinState, before: int) -> None:
        structlog.get_logger().warning(
            "relay.twin_rebuilt", log=self._log.name, first=state.first, last=state.last, holes=state.holes
        )
        await self._twin.delete()
        await self._twin.create(before + 1)

    def _say_copying(self) -> None:
        structlog.get_logger().info("relay.copying", log=self._log.name, position=self.position)
