"""The log over memory, a round trip away, as one process sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar

from twinlog.log.ports import (
    Appended,
    Batch,
    Conflict,
    LogSession,
    ReadRequest,
    StreamSlice,
)
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import Unavailable
from twinlog.model.event import StreamId
from twinlog.testing.simulation.faults import UNKNOWN
from twinlog.testing.simulation.network import Client, Network, Remote, Store, asked, at_once

T = TypeVar("T")


class LogServer(Store):
    def __init__(self, log: MemoryLog, committed: Callable[[Batch, Appended], None]) -> None:
        super().__init__(log.name)
        self.log = log
        self.failovers = 0
        self.unreadable: dict[StreamId, tuple[int, float]] = {}
        """Streams with the version that no process can read, and until when."""
        self.committed = committed
        """Told of every commit, at its moment."""

    def append(self, batch: Batch) -> Appended | Conflict:
        """Commits or refuses."""
        result = at_once(self.log.append(batch))
        if isinstance(result, Appended):
            self.committed(batch, result)
        return result

    def load(self, wanted: Sequence[ReadRequest], now: float) -> Sequence[StreamSlice]:
        """The slices; what is unreadable at the moment comes with an unknown type."""
        slices = at_once(self.log.load(wanted))
        if not self.unreadable:
            return slices
        return [self._seen(want.stream, slice, now) for want, slice in zip(wanted, slices, strict=True)]

    def _seen(self, stream: StreamId, slice: StreamSlice, now: float) -> StreamSlice:
        version, until = self.unreadable.get(stream, (0, 0.0))
        if until <= now:
            return slice
        events = [e._replace(type=UNKNOWN) if e.version == version else e for e in slice.events]
        return slice._replace(events=events)


class RemoteLog(Remote[LogServer]):
    """A log as a process sees it."""

    def __init__(self, network: Network, client: Client, server: LogServer) -> None:
        super().__init__(network, client, server)
        self.name = server.name

    async def append(self, batch: Batch) -> Appended | Conflict:
        if batch.tip and batch.tip.connections != self.connections:
            return Conflict(forked=True)
        return await self._ask("append", lambda: self._server.append(batch))

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        return await self._ask("load", lambda: self._server.load(wanted, self._network.loop.time()))

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        session = _Exclusive(self)
        try:
            await self._ask("lock", lambda: self._lock(session))
            yield session
            if session.staged is not None:
                await self._ask("commit", session.commit)
        finally:
            # A broken connection gives the lock back, too; a dead process's does so in its crash.
            session.open = False
            self._network.unlock(self._server, self._client.life)

    read = asked("read", MemoryLog.read)
    head = asked("head", MemoryLog.head)
    reply = asked("reply", MemoryLog.reply)
    checkpoint = asked("checkpoint", MemoryLog.checkpoint)
    era = asked("era", MemoryLog.era)
    begin_era = asked("begin era", MemoryLog.begin_era)
    last_handled = asked("last handled", MemoryLog.last_handled)
    due = asked("due", MemoryLog.due)
    save = asked("save", MemoryLog.save)
    sweep_requests = asked("sweep", MemoryLog.sweep_requests)

    @property
    def connections(self) -> int:
        return self._server.failovers

    async def time(self) -> datetime:
        """What time it is at the store."""
        return await self._ask("time", self._network.time)

    async def blockers(self) -> Sequence[str]:
        return []

    async def page_token_secret(self) -> bytes:
        return await self._memory.page_token_secret()

    @property
    def _memory(self) -> MemoryLog:
        return self._server.log

    async def _ask(self, what: str, apply: Callable[[], T]) -> T:
        sent = self._server.failovers

        def at_the_same_server() -> T:
            if self._server.failovers != sent:
                raise Unavailable("the connection broke")  # and the transaction with it
            return apply()

        return await super()._ask(what, at_the_same_server)

    def _lock(self, session: _Exclusive) -> None:
        if session.open and self._client.life.alive:
            self._server.holder = self._client.life


class _Exclusive:
    """What an exclusive block works through; its append is committed when the block ends."""

    def __init__(self, log: RemoteLog) -> None:
        self._remote = log
        self._failovers = log.connections
        self.staged: Batch | None = None
        self.open = True
        """Whether its connection is."""

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        return await self._remote.load(wanted)

    async def append(self, batch: Batch) -> Appended | Conflict:
        if batch.tip and batch.tip.connections != self._remote.connections:
            return Conflict(forked=True)
        result = await self._remote._ask("append alone", lambda: self._check(batch))
        if isinstance(result, Appended):
            self.staged = batch
        return result

    def commit(self) -> None:
        server = self._remote._server
        if server.holder is not self._remote._client.life or server.failovers != self._failovers:
            raise Unavailable("the connection broke")  # and the transaction with it
        assert self.staged is not None
        server.append(self.staged)

    def _check(self, batch: Batch) -> Appended | Conflict:
        log = self._remote._memory
        if self._failovers != self._remote.connections:
            raise Unavailable("the connection broke")
        before = log.events[-1].event_id if log.events else None
        return log._refused(batch) or Appended(len(log.events) + 1, before)
