"""The relay: copies a log into its twin. It decides nothing: when the twin refuses, it asks how far the twin is.

The stream's last sequence is the only checkpoint. Two relays, a zombie, a retry after a lost reply: the server
refuses whatever does not follow its last sequence. The relay restores what the twin lost under the same sequences.
A twin that is ahead of its log, or that holds other events, is left alone and reported.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log.lease import ALWAYS_HELD, Lease
from twinlog.log.ports import Log
from twinlog.log.twin import Twin, TwinDamaged, TwinMissing, TwinState, WrongLastSequence, mirrors
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
        self, log: Log, twin: Twin, lease: Lease = ALWAYS_HELD, *, randomness: Randomness = random
    ) -> None:
        self._log = log
        self._twin = twin
        self._lease = lease
        self._pending: deque[Recorded] = deque()
        self._wake = asyncio.Event()
        self._behind = True  # the log may have events that are not in _pending
        self._progress = asyncio.Condition()
        self._relaying = False
        self.position: int | None = None
        """The last event that the twin is known to hold; None while that is unknown."""
        self._retrying = Retrying(
            say_failing=self._say_stopped,
            say_working=self._say_copying,
            on=(Unavailable, TwinMissing, TwinDamaged),
            randomness=randomness,
        )

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem

    def offer(self, events: Sequence[Recorded]) -> None:
        """Takes events right after their commit, which spares reading them again."""
        if self._relaying:
            self._pending.extend(events)
            if len(self._pending) > _MAX_PENDING:
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
            await self._lease.hold(self._copy_while_held)

    async def drain(self, timeout: float = _DRAIN_TIMEOUT_SECONDS) -> None:
        """Returns when everything committed so far is in the twin, or after ``timeout`` seconds."""
        try:
            async with asyncio.timeout(timeout):
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
        self._relaying, self._behind, self.position = True, True, None
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
        finally:
            self.position = None

    async def _copy_from(self, position: int) -> None:
        await self._advance(position)
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
        except WrongLastSequence:
            await self._advance(await self._agree())
        else:
            await self._advance(events[-1].position)

    async def _next(self) -> Sequence[Recorded]:
        """The next events: from memory if they are there, otherwise from the log if it may have more."""
        assert self.position is not None
        self._wake.clear()
        while self._pending and self._pending[0].position <= self.position:
            self._pending.popleft()
        if events := self._handed_over(self.position):
            return events
        if not (self._pending or self._behind):
            return ()
        self._behind = False
        read = await self._log.read(self.position, BATCH)
        self._behind |= bool(read)
        return read

    def _handed_over(self, after: int) -> list[Recorded]:
        """Offered events, up to the first gap: another process may have committed in between."""
        events: list[Recorded] = []
        while self._pending and len(events) < BATCH and self._pending[0].position == after + len(events) + 1:
            events.append(self._pending.popleft())
        return events

    def _look_at_log(self) -> None:
        """Has the log read: it may hold events that were never offered."""
        self._behind = True
        self._wake.set()

    async def _wait(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _advance(self, position: int) -> None:
        async with self._progress:
            self.position = position
            self._progress.notify_all()

    async def _agree(self) -> int:
        """The position to continue from: the twin's last sequence, once the twin is known to mirror the log."""
        self._behind = True
        try:
            state = await self._twin.state()
        except TwinMissing:
            await self._twin.create(1)
            structlog.get_logger().info("relay.twin_created", log=self._log.name)
            state = await self._twin.state()
        await self._compare(state)
        await self._twin.claim()
        if state.first > 1 or state.holes:
            await self._rebuild(state)
            return 0
        return state.last

    async def _inspect_twin(self) -> None:
        """Repairs a twin that lost messages while nothing was published: cursors may be waiting for them."""
        state = await self._twin.state()
        if state.last != self.position or state.first > 1 or state.holes:
            await self._advance(await self._agree())

    async def _rebuild(self, state: TwinState) -> None:
        structlog.get_logger().warning(
            "relay.twin_rebuilt", log=self._log.name, first=state.first, last=state.last, holes=state.holes
        )
        await self._twin.delete()
        await self._twin.create(1)

    async def _compare(self, state: TwinState) -> None:
        head = await self._log.head()
        if state.last > head:
            self._refuse_ahead(state, head)
        if not state.last:
            return
        theirs = await self._twin.message(state.last)
        (ours,) = await self._log.read(state.last - 1, 1)
        if theirs is not None and not mirrors(theirs, ours):
            name = self._twin.name
            raise TwinDamaged(
                stream=name,
                damage=f"its message {state.last} is not event {state.last} of the log",
                remedy=f"if this database is the right one, delete the stream (nats stream rm {name}); it is "
                f"made again from the log. If not, restore the database that the stream was made from.",
            )

    def _refuse_ahead(self, state: TwinState, head: int) -> None:
        name = self._twin.name
        raise TwinDamaged(
            stream=name,
            damage=f"it has {state.last} events, the log only {head}: the database was set back",
            remedy=f"restore a database that has at least {state.last} events; or, to give up events {head + 1} to "
            f"{state.last}, stop the services, delete the stream (nats stream rm {name}), and set back every "
            f"consumer's checkpoint of {name} that is above {head}.",
        )

    def _say_stopped(self, error: Exception) -> None:
        structlog.get_logger().error("relay.stopped", log=self._log.name, problem=str(error))

    def _say_copying(self) -> None:
        structlog.get_logger().info("relay.copying", log=self._log.name, position=self.position)
