"""The kernel's ports over memory adapters that are a round trip away, as one process sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from random import Random
from typing import Any, TypeVar
from uuid import UUID

from tests.simulation.loop import Life, SimulatedLoop
from tests.simulation.network import Client, Network, Store, at_once, latency
from twinlog import Recorded, Unavailable
from twinlog.log.ports import Conflict, Handled, LogSession, ReadRequest, StoredReply, StreamSlice
from twinlog.log.twin import Delivery, DeliveryLost
from twinlog.testing import START, MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import (
    AnyView,
    Appended,
    Batch,
    Changes,
    CheckpointAdvance,
    Snapshot,
    Timer,
    TwinState,
)

T = TypeVar("T")


class SkewedClock:
    """A process's clock: off by ``skew`` seconds."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.skew = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=round(self._loop.time() + self.skew, 6))


class SeededIds:
    """Well-formed UUIDs from a seed."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def uuid7(self) -> UUID:
        drawn = self._chance.getrandbits(128) & ~(0xF000 << 64) & ~(0xC000 << 48)
        return UUID(int=drawn | 0x7000 << 64 | 0x8000 << 48)


# --- the log ---


class LogServer(Store):
    """A log's database."""

    def __init__(self, log: MemoryLog, committed: Callable[[Batch, Appended], None]) -> None:
        super().__init__(log.name)
        self.log = log
        self.failovers = 0
        self.committed = committed
        """Told of every commit, at its moment."""

    def append(self, batch: Batch) -> Appended | Conflict:
        """Commits or refuses."""
        result = at_once(self.log.append(batch))
        if isinstance(result, Appended):
            self.committed(batch, result)
        return result


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
        return await self._ask("load", lambda: at_once(self._log.load(wanted)))

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


# --- the twin ---


class TwinServer(Store):
    """A stream, and who listens to its pokes."""

    def __init__(self, twin: MemoryTwin, published: Callable[[Sequence[Recorded]], None]) -> None:
        super().__init__(f"{twin.name} twin")
        self.twin = twin
        self.published = published
        """Told of every batch, at its moment."""
        self.listeners: list[tuple[Life, asyncio.Event]] = []

    def publish(self, events: Sequence[Recorded]) -> None:
        """Stores or refuses."""
        at_once(self.twin.publish(events))
        self.published(events)


class RemoteTwin:
    """A stream as a process sees it."""

    def __init__(self, network: Network, client: Client, server: TwinServer) -> None:
        self.name = server.twin.name
        self._network = network
        self._client = client
        self._server = server
        self._poked: asyncio.Event | None = None

    async def state(self) -> TwinState:
        return await self._ask("state", lambda: at_once(self._server.twin.state()))

    async def create(self, first: int) -> None:
        await self._ask("create", lambda: at_once(self._server.twin.create(first)))

    async def claim(self) -> None:
        await self._server.twin.claim()

    async def delete(self) -> None:
        await self._ask("delete", lambda: at_once(self._server.twin.delete()))

    async def message(self, sequence: int) -> bytes | None:
        return await self._ask("message", lambda: at_once(self._server.twin.message(sequence)))

    async def publish(self, events: Sequence[Recorded]) -> None:
        await self._ask("publish", lambda: self._server.publish(events))

    @asynccontextmanager
    async def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AsyncIterator[Delivery]:
        opened = self._server.twin.deliver(after, types, routing_key)
        delivery = await self._ask("deliver", lambda: at_once(opened.__aenter__()))
        yield RemoteDelivery(self._network, self._client, self._server, delivery)

    async def notify(self) -> None:
        loop, weather = self._network.loop, self._network.weather
        for life, event in self._server.listeners:
            if life.alive and not weather.bad("lost pokes", self.name, loop.time()):
                loop.call_later(latency(self._client.chance), event.set, context=loop.nobody)

    async def notified(self, timeout: float) -> None:
        if self._poked is None:
            self._poked = asyncio.Event()
            self._server.listeners.append((self._client.life, self._poked))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._poked.wait()
        self._poked.clear()

    async def _ask(self, what: str, apply: Callable[[], T]) -> T:
        return await self._network.ask(self._client, self._server, f"{what} {self.name} twin", apply)


class RemoteDelivery:
    """Deliveries that are delayed, doubled and broken off."""

    def __init__(self, network: Network, client: Client, server: TwinServer, delivery: Delivery) -> None:
        self._network = network
        self._client = client
        self._server = server
        self._delivery = delivery
        self._before: Sequence[Recorded] = ()

    @property
    def waiting(self) -> int:
        return self._delivery.waiting

    async def next(self, limit: int) -> Sequence[Recorded]:
        chance, bad, name = self._client.chance, self._network.weather.bad, self._server.twin.name
        events = await self._delivery.next(min(limit, chance.choice((1, 2, 5, limit))))
        await asyncio.sleep(latency(chance))
        now = self._network.loop.time()
        if bad("outage", self._server.name, now) or (
            bad("broken deliveries", name, now) and chance.random() < 0.4
        ):
            self._network.trace(f"{name} twin", f"a delivery to {self._client.life.name} breaks off")
            raise DeliveryLost(stream=name, why="a message is missing")
        if bad("doubled deliveries", name, now) and chance.random() < 0.6:
            events = [*self._before, *events]
        self._before = events
        return events


# --- views ---


class ViewServer(Store):
    """The views beside a log."""

    def __init__(
        self,
        name: str,
        views: MemoryViews,
        log: LogServer,
        committed: Callable[[Changes, CheckpointAdvance], None],
    ) -> None:
        super().__init__(name)
        self.views = views
        self.log = log
        self.committed = committed
        """Told of every commit, at its moment."""

    def commit(self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None) -> Conflict | None:
        """Stores or refuses."""
        first = len(self.views.log.events) + 1
        conflict = at_once(self.views.commit(changes, advance, batch))
        if conflict is None:
            if batch:
                self.log.committed(batch, Appended(first))
            self.committed(changes, advance)
        return conflict


class RemoteViews:
    """Views as a process sees them."""

    def __init__(self, network: Network, client: Client, server: ViewServer) -> None:
        self._network = network
        self._client = client
        self._server = server
        self.log = RemoteLog(network, client, server.log)

    async def checkpoint(self, consumer: str) -> int:
        return await self._ask("checkpoint", lambda: self._server.views.checkpoints.get(consumer, 0))

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        return await self._ask("rows", lambda: at_once(self._server.views.rows(view, keys)))

    async def commit(
        self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None = None
    ) -> Conflict | None:
        return await self._ask("commit", lambda: self._server.commit(changes, advance, batch))

    async def _ask(self, what: str, apply: Callable[[], T]) -> T:
        return await self._network.ask(self._client, self._server, f"{what} {self._server.name}", apply)


# --- leases ---


class LeaseServer:
    """Grants one piece of work to one replica; in bad weather to several, and takes it back late."""

    def __init__(self, loop: SimulatedLoop, chance: Random, shared: Callable[[], bool]) -> None:
        self._loop = loop
        self._chance = chance
        self._shared = shared
        self._waiting: list[RemoteLease] = []
        self._holding: list[RemoteLease] = []

    def enter(self, lease: RemoteLease) -> None:
        """Lets a replica wait for the work; it no longer does it."""
        if lease in self._holding:
            self._holding.remove(lease)
        self._waiting.append(lease)
        self._loop.call_later(self._chance.random() * 0.1, self.look, context=self._loop.nobody)

    def look(self) -> None:
        """Grants what is free."""
        self._waiting = [lease for lease in self._waiting if lease.life.alive]
        self._holding = [lease for lease in self._holding if lease.life.alive]
        now = self._loop.time()
        able = [lease for lease in self._holding if lease.life.frozen_until <= now]
        if self._waiting and (not able or self._shared()):
            chosen = self._waiting.pop(self._chance.randrange(len(self._waiting)))
            for late in self._holding if not self._shared() else ():
                self._revoke(late, self._chance.random() * 3)
            self._holding.append(chosen)
            chosen.granted.set()

    def hand_over(self) -> None:
        """Gives the work to another, and tells the one that had it a little later."""
        for lease in self._holding:
            self._revoke(lease, self._chance.random() * 2)
        self._holding.clear()
        self.look()

    def heal(self) -> None:
        """Leaves the work with one."""
        for lease in self._holding[1:]:
            self._revoke(lease, 0.0)
        del self._holding[1:]
        self.look()

    def _revoke(self, lease: RemoteLease, seconds: float) -> None:
        self._loop.call_later(seconds, lease.revoked.set, context=self._loop.nobody)


class RemoteLease:
    """A lease as a replica sees it."""

    problem: str | None = None

    def __init__(self, life: Life, server: LeaseServer) -> None:
        self.life = life
        self._server = server
        self.granted = asyncio.Event()
        self.revoked = asyncio.Event()

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            self._server.enter(self)
            await self.granted.wait()
            async with asyncio.TaskGroup() as group:
                running = group.create_task(_run(work))
                await self.revoked.wait()
                running.cancel()
            self.granted.clear()
            self.revoked.clear()


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
