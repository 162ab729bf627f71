"""Fills a build of a view from the log itself, up to where the log's stream ends; from there on a cursor follows.

The stream may be trimmed, and a delivery is made for events that come now. The log has all of them, and gives many at a
time. What becomes of an event that fails is the same: the consumer's dead-lettering decides, as for a delivered one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.consume.cursor import Cursor, Handler
from twinlog.log.lease import Lease
from twinlog.log.twin import Twin, TwinMissing
from twinlog.model.errors import CheckpointMoved, Unavailable
from twinlog.model.event import Recorded

CHUNK = 5_000
"""Events that are read and committed at a time: it bounds memory, and how much a kill undoes."""
_NEAR = 500
"""So few events ahead are left to the cursor."""


class LogReader(Protocol):
    """A log, to be read from any position on."""

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """Up to ``limit`` events with a position greater than ``after``, in order."""
        ...


OpenLog = Callable[[str, Twin], AbstractAsyncContextManager[LogReader | None]]
"""Opens the log of that name, which has this twin, for reading; None where it is not within reach: then the stream has
to do."""


class _Ahead:
    """Reads a log chunk by chunk, the next one while this one is taken in."""

    def __init__(self, log: LogReader, after: int, upto: int) -> None:
        self._log = log
        self._read = after
        self._upto = upto
        self._reading: asyncio.Task[Sequence[Recorded]] | None = None

    async def __aenter__(self) -> _Ahead:
        self._begin()
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def next(self) -> Sequence[Recorded]:
        """The next events; none where there are no more."""
        if self._reading is None:
            return ()
        events = await self._reading
        self._reading = None
        if events:
            self._read = events[-1].position
            self._begin()
        return events

    def _begin(self) -> None:
        if self._read < self._upto:
            self._reading = asyncio.create_task(self._chunk())

    async def _chunk(self) -> Sequence[Recorded]:
        return await self._log.read(self._read, min(CHUNK, self._upto - self._read))


class Filling:
    """Fills a build, then follows; what a :class:`Cursor` is for other consumers."""

    def __init__(
        self,
        twin: Twin,
        handler: Handler,
        cursor: Cursor,
        lease: Lease,
        open_log: OpenLog,
        *,
        log: str,
        share: int = 100,
        randomness: Randomness = random,
    ) -> None:
        """``cursor`` follows without a lease of its own. ``log``: the log's name.
        ``share``: percent of the time that filling may take."""
        self._twin = twin
        self._handler = handler
        self._cursor = cursor
        self._lease = lease
        self._open_log = open_log
        self._log = log
        self._rest = 100 / max(1, min(100, share)) - 1
        self._retrying = Retrying(
            say_failing=self._say_stopped, say_working=self._say_going_on, randomness=randomness
        )

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem or self._cursor.problem

    async def run(self) -> None:
        """Keeps the build up to date while the lease is held."""
        await self._lease.hold(self._run_while_held)

    async def _run_while_held(self) -> None:
        while True:
            try:
                await self._fill()
                break
            except CheckpointMoved:
                continue
            except Exception as error:
                self._retrying.failed(error)
                await self._retrying.pause()
        self._retrying.reset()
        await self._cursor.run()

    async def _fill(self) -> None:
        async with self._open_log(self._log, self._twin) as log:
            if log is None:
                return
            after = read = await self._handler.checkpoint()
            while (state := await self._twin.state()).last > read + _NEAR or state.first > read + 1:
                upto = state.last
                before = read
                async with _Ahead(log, read, upto) as chunks:
                    while events := await chunks.next():
                        after = await self._take(events, after)
                        read = events[-1].position
                if read == before:
                    return  # the log does not go on

    async def _take(self, events: Sequence[Recorded], after: int) -> int:
        """Takes in the next events; gives the checkpoint."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if wanted := self._wanted(events):
            after = await self._handler.handle(wanted, after)
        self._retrying.succeeded()
        await asyncio.sleep(self._rest * (loop.time() - began))
        return after

    def _wanted(self, events: Sequence[Recorded]) -> Sequence[Recorded]:
        key = self._handler.routing_key
        return [event for event in events if event.routing_key == key] if key else events

    def _say_stopped(self, error: Exception) -> None:
        log, name = structlog.get_logger(), self._handler.name
        if not isinstance(error, Unavailable | TwinMissing):
            log.error("view_build.failed", consumer=name, exc_info=error)
        log.warning("view_build.stopped", consumer=name, problem=self.problem)

    def _say_going_on(self) -> None:
        structlog.get_logger().info("view_build.filling", consumer=self._handler.name)
