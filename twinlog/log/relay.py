"""The relay: copies a log into its twin. It does not decide: where the twin refuses, it reads how far the twin is.

The stream's last sequence is the only checkpoint. Two relays, a zombie, a retry after a lost reply: the server
refuses whatever does not follow its last sequence. What the twin lost, the relay puts back under the same
sequences; only a twin that is ahead of its log, or that holds other events, is left alone and reported.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from twinlog.log.lease import Lease
from twinlog.log.ports import Log
from twinlog.log.twin import Twin, TwinDamaged, TwinMissing, TwinState, WrongLastSequence, mirrors
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded

BATCH = 500
"""Events published at once."""

_PENDING = 20_000
_POLL_FIRST, _POLL_MOST = 0.1, 1.0
"""How often the log is read while nobody tells of events: other processes poke, and a poke may get lost."""
_BEFORE_NOTIFY = 0.02
"""How long a replica that copies waits before it looks again whether it still does."""
_RETRY_FIRST, _RETRY_MOST = 0.05, 2.0
_LOOK_AFTER = 1.0


class Relay:
    """Copies one log; the process that commits hands its events over from memory."""

    def __init__(self, log: Log, twin: Twin, lease: Lease | None = None) -> None:
        self._log = log
        self._twin = twin
        self._lease = lease
        self._pending: deque[Recorded] = deque()
        self._wake = asyncio.Event()
        self._behind = True  # the log may have events that are not in _pending
        self._progress = asyncio.Condition()
        self._relaying = False
        self.position: int | None = None
        """The last event that the twin is known to hold; None before the first look."""
        self.problem: str | None = None
        """Why nothing is copied at the moment, if so."""

    def offer(self, events: Sequence[Recorded]) -> None:
        """Takes events right after their commit, so that they need not be read again."""
        if self._relaying:
            self._pending.extend(events)
            if len(self._pending) > _PENDING:
                self._pending.clear()
                self._behind = True
        else:
            self._behind = True
        self._wake.set()

    async def run(self) -> None:
        """Copies for ever; where a lease is given, only while it is held."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            if self._lease:
                tasks.create_task(self._notify_when_idle())
                await self._lease.hold(self._copy_for_ever)
            else:
                await self._copy_for_ever()

    async def drain(self, timeout: float = 5.0) -> None:
        """Returns when everything committed so far is in the twin, or when time is up."""
        try:
            async with asyncio.timeout(timeout):
                head = await self._log.head()
                self._look()
                async with self._progress:
                    await self._progress.wait_for(lambda: (self.position or 0) >= head)
        except (TimeoutError, Unavailable):
            structlog.get_logger().warning("relay.not_drained", log=self._log.name, position=self.position)

    async def _listen(self) -> None:
        """Wakes up when another process of this service has committed."""
        while True:
            await self._twin.notified(60.0)
            if self._relaying:  # else the poke is this replica's own, or for another
                self._look()

    async def _notify_when_idle(self) -> None:
        """Tells the replica that copies when this one has committed and does not copy itself."""
        while True:
            await self._wake.wait()
            if self._relaying:
                await asyncio.sleep(_BEFORE_NOTIFY)
                continue
            self._wake.clear()
            await self._twin.notify()

    async def _copy_for_ever(self) -> None:
        self._relaying, self._behind, self.position = True, True, None
        try:
            delay = _RETRY_FIRST
            while True:
                try:
                    await self._copy()
                except (Unavailable, TwinMissing, TwinDamaged) as error:
                    delay = _RETRY_FIRST if self.problem is None else min(delay * 2, _RETRY_MOST)
                    self._report(str(error))
                    self.position = None
                    await asyncio.sleep(delay)
        finally:
            self._relaying, self.position = False, None
            self.problem = None  # another replica goes on, and its troubles are not ours
            self._pending.clear()

    async def _copy(self) -> None:
        """Copies until something goes wrong."""
        await self._advance(await self._agree())
        loop = asyncio.get_running_loop()
        poll, looked = _POLL_FIRST, loop.time()
        while True:
            events = await self._next()
            if events:
                poll = _POLL_FIRST
                await self._publish(events)
            elif not await self._wait(poll):
                self._behind = True
                poll = min(poll * 2, _POLL_MOST)
            self._report(None)
            if loop.time() - looked >= _LOOK_AFTER:
                await self._look_after_twin()
                looked = loop.time()

    async def _publish(self, events: Sequence[Recorded]) -> None:
        try:
            await self._twin.publish(events)
        except WrongLastSequence:
            await self._advance(await self._agree())
        else:
            await self._advance(events[-1].position)

    async def _next(self) -> Sequence[Recorded]:
        """The events that follow; from memory where they are there, else from the log where it may have more."""
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
        """What was handed over, as far as it follows: another process may have committed in between."""
        events: list[Recorded] = []
        while self._pending and len(events) < BATCH and self._pending[0].position == after + len(events) + 1:
            events.append(self._pending.popleft())
        return events

    def _look(self) -> None:
        """Sees to it that the log is read: it may have what no offer told of."""
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
        """Where to go on: the twin's last sequence, after making sure that the twin mirrors the log."""
        self._behind = True
        try:
            state = await self._twin.state()
        except TwinMissing:
            structlog.get_logger().info("relay.twin_created", log=self._log.name)
            await self._twin.create(1)
            state = await self._twin.state()
        await self._compare(state)
        if state.first > 1 or state.holes:
            await self._rebuild(state)
            return 0
        return state.last

    async def _look_after_twin(self) -> None:
        """Whether the twin is still whole; cursors may be waiting for what is gone from it."""
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

    def _report(self, problem: str | None) -> None:
        if problem != self.problem:
            log = structlog.get_logger()
            if problem:
                log.error("relay.stopped", log=self._log.name, problem=problem)
            else:
                log.info("relay.copying", log=self._log.name, position=self.position)
        self.problem = problem
