"""Fills a build of a view from the log itself, up to where the log's stream ends; from there on a cursor follows.

The stream may be trimmed, and a delivery is made for events that come now. The log has all of them, and gives many at a
time. What becomes of an event that fails is the same: the consumer's dead-lettering decides, as for a delivered one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import structlog

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.consume.cursor import Cursor, Handler
from twinlog.log import say
from twinlog.log.lease import Lease
from twinlog.log.twin import LogForked, Twin, TwinMissing
from twinlog.log.wire import event_id_of
from twinlog.model.errors import CheckpointMoved, ConfigurationError, Unavailable
from twinlog.model.event import Recorded

CHUNK = 2_000
"""Events that are read and committed at a time: it bounds memory, how much a kill undoes, and for how long the loop is
held. More would not be faster: the collector would look at them before they are gone."""
NEAR = 500
"""A lead of at most so many events is left to the cursor."""


class LogReader(Protocol):
    """A log, to be read from any position on."""

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """Up to ``limit`` events with a position greater than ``after``, in order."""


OpenLog = Callable[[str, Twin], AbstractAsyncContextManager[LogReader | None]]
"""Opens the log of that name, which has this twin, for reading; None where it is not within reach: then the stream has
to do."""


Prepare = Callable[[Sequence[Recorded]], None]
"""Does what it can with events before their turn."""


class ReadAhead:
    """Reads a log chunk by chunk; the next one is read and prepared while this one is committed."""

    def __init__(
        self,
        log: LogReader,
        after: int,
        upto: int,
        prepare: Prepare,
        routing_key: str = "",
        *,
        ahead: bool = True,
        check: Callable[[Recorded], Awaitable[None]] | None = None,
    ) -> None:
        """``routing_key``: that of the wanted events; empty: all are. ``ahead``: without it nothing is read until it
        is asked for. ``check`` is given the last event of each chunk, before any of it is given."""
        self._log = log
        self.read = after
        """The position up to which events were given."""
        self._upto = upto
        self._prepare = prepare
        self._routing_key = routing_key
        self._ahead = ahead
        self._check = check
        self._reading: asyncio.Task[_Chunk] | None = None

    async def __aenter__(self) -> ReadAhead:
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._reading:
            self._reading.cancel()
            await asyncio.wait([self._reading])

    async def next(self) -> Sequence[Recorded] | None:
        """The next wanted events, maybe an empty list; None at the end."""
        chunk = await (self._reading or self._chunk(self.read))
        self._reading = None
        if chunk.last is None:
            return None
        self.read = chunk.last
        if self._ahead:
            self._reading = asyncio.create_task(self._chunk(self.read))
        return chunk.wanted

    async def _chunk(self, after: int) -> _Chunk:
        limit = min(CHUNK, self._upto - after)
        events = await self._log.read(after, limit) if limit > 0 else ()
        if not events:
            return _Chunk((), None)
        if self._check:
            await self._check(events[-1])
        key = self._routing_key
        wanted = [event for event in events if event.routing_key == key] if key else events
        self._prepare(wanted)
        return _Chunk(wanted, events[-1].position)


class _Chunk(NamedTuple):
    wanted: Sequence[Recorded]
    last: int | None
    """The position of the last event that was read."""


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
        prepare: Prepare = lambda _events: None,
        follows: Callable[[], None] = lambda: None,
        share: int = 100,
        randomness: Randomness = random,
    ) -> None:
        """``cursor`` follows without its own lease. ``log``: the log's name.
        ``prepare`` is told what will be handled next, while that before is committed. ``follows`` is
        called once it has come so far that the cursor follows.
        ``share``: percent of the time that filling may take."""
        self._twin = twin
        self._handler = handler
        self._cursor = cursor
        self._lease = lease
        self._open_log = open_log
        self._log = log
        self._prepare = prepare
        self._follows = follows
        self._rest = 100 / max(1, min(100, share)) - 1
        self._retrying = Retrying(
            say_failing=self._say_stopped,
            say_working=say.info("view_build.filling", consumer=handler.name),
            randomness=randomness,
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
        self._follows()
        await self._cursor.run()

    async def _fill(self) -> None:
        async with self._open_log(self._log, self._twin) as log:
            if log is None:
                return
            after = read = await self._handler.checkpoint()
            while (state := await self._twin.state()).last > read + NEAR or state.first > read + 1:
                upto = state.last
                before = read
                async with self._reading(log, read, upto) as chunks:
                    while (taken := await self._take(chunks, after)) is not None:
                        after, read = taken, chunks.read
                if read == before:
                    return  # the log does not go on

    def _reading(self, log: LogReader, after: int, upto: int) -> ReadAhead:
        # What rests reads nothing meanwhile, so that its share is of all that it does.
        key, ahead = self._handler.routing_key, not self._rest
        return ReadAhead(log, after, upto, self._prepare, key, ahead=ahead, check=self._refuse_fork)

    async def _refuse_fork(self, event: Recorded) -> None:
        """Raises LogForked where the stream has another event in the place of one of the log: the log was set back."""
        message = await self._twin.message(event.position)
        if message and event_id_of(message, event.position) not in (None, event.event_id):
            why = f"event {event.position} of the log is not the one in the stream"
            raise LogForked(log=self._log, since=event.position, why=why)

    async def _take(self, chunks: ReadAhead, after: int) -> int | None:
        """Takes in the next events; gives the checkpoint, or None where there are no more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        events = await chunks.next()
        if events is None:
            return None
        if events:
            after = await self._handler.handle(events, after)
        self._retrying.succeeded()
        await asyncio.sleep(self._rest * (loop.time() - began))
        return after

    def _say_stopped(self, error: Exception) -> None:
        log, name = structlog.get_logger(), self._handler.name
        if not isinstance(error, Unavailable | TwinMissing | ConfigurationError):
            log.error("view_build.failed", consumer=name, exc_info=error)
        log.warning("view_build.stopped", consumer=name, problem=self.problem)
