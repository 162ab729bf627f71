"""The log over memory, a round trip away, as one process sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from twinlog.log.ports import (
    Appended,
    Batch,
    Conflict,
    Handled,
    LogSession,
    ReadRequest,
    Snapshot,
    StoredReply,
    StreamSlice,
    Timer,
)
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded, StreamId
from twinlog.testing.simulation.network import Client, Network, Store, at_once
from twinlog.testing.simulation.newer import UNKNOWN

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


class RemoteLog:
    """A log as a process sees it."""

    def __init__(self, network: Network, client: Client, server: LogServer) -> None:
        self.name = server.name
        self._network = network
        self._client = client
        self._server = server

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

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        return await self._ask("read", lambda: at_once(self._log.read(after, limit)))

    async def head(self) -> int:
        return await self._ask("head", lambda: len(self._log.events))

    async def reply(self, request_id: str) -> StoredReply | None:
        return await self._ask("reply", lambda: self._log.replies.get(request_id))

    async def checkpoint(self, consumer: str) -> int:
        return await self._ask("checkpoint", lambda: self._log.checkpoints.get(consumer, 0))

    async def era(self) -> int:
        return await self._ask("era", lambda: self._log.eras)

    async def begin_era(self) -> None:
        await self._ask("begin era", lambda: at_once(self._log.begin_era()))

    @property
    def connections(self) -> int:
        return self._server.failovers

    async def last_handled(self, consumer: str) -> Handled | None:
        return await self._ask("last handled", lambda: self._log.handled.get(consumer))

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Sequence[Timer]:
        return await self._ask("due", lambda: at_once(self._log.due(now, limit, after)))

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        await self._ask("save", lambda: at_once(self._log.save(snapshots)))

    async def sweep_requests(self, age: timedelta, limit: int) -> int:
        return await self._ask("sweep", lambda: at_once(self._log.sweep_requests(age, limit)))

    async def time(self) -> datetime:
        """What time it is at the store."""
        return await self._ask("time", self._network.time)

    async def blockers(self) -> Sequence[str]:
        return []

    async def page_token_secret(self) -> bytes:
        return await self._log.page_token_secret()

    @property
    def _log(self) -> MemoryLog:
        return self._server.log

    async def _ask(self, what: str, apply: Callable[[], T]) -> T:
        sent = self._server.failovers

        def at_the_same_server() -> T:
            if self._server.failovers != sent:
                raise Unavailable("the connection broke")  # and the transaction with it
            return apply()

        return await self._network.ask(self._client, self._server, f"{what} {self.name}", at_the_same_server)

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
        log = self._remote._log
        if self._failovers != self._remote.connections:
            raise Unavailable("the connection broke")
        before = log.events[-1].event_id if log.events else None
        return log._refused(batch) or Appended(len(log.events) + 1, before)
