"""The twin over memory, a round trip away, whose deliveries are delayed, doubled and broken off."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from twinlog.log.twin import Delivery, DeliveryLost
from twinlog.memory.twin import MemoryTwin
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded
from twinlog.testing.simulation.invariants import check
from twinlog.testing.simulation.loop import Life
from twinlog.testing.simulation.network import Client, Network, Remote, Store, asked, at_once, latency

T = TypeVar("T")

MOST_REFUSALS_A_SECOND = 20
"""Of a stream that takes no more, by two replicas that try again with a backoff: some six each."""
_KNOWN_AFTER_SECONDS = 0.001


class TwinServer(Store):
    """A stream, and who listens to its pokes."""

    def __init__(self, twin: MemoryTwin, published: Callable[[Sequence[Recorded]], None]) -> None:
        super().__init__(f"{twin.name} twin")
        self.twin = twin
        self.published = published
        """Told of every batch, at its moment."""
        self.listeners: list[tuple[Life, asyncio.Event]] = []
        self._refusals: deque[float] = deque(maxlen=MOST_REFUSALS_A_SECOND)

    def publish(self, events: Sequence[Recorded], now: float, *, full: bool) -> None:
        """Stores or refuses. ``full``: whether it takes no more at the moment."""
        if full:
            self._refuse(now)
        at_once(self.twin.publish(events))
        self.published(events)

    def _refuse(self, now: float) -> None:
        self._refusals.append(now)
        often = len(self._refusals) == MOST_REFUSALS_A_SECOND and now - self._refusals[0] < 1.0
        check(
            not often, "pauses", f"the {self.name} refused {MOST_REFUSALS_A_SECOND} batches within a second"
        )
        raise Unavailable(f"the {self.name} is at its limit")


class RemoteTwin(Remote[TwinServer]):
    """A stream as a process sees it."""

    def __init__(self, network: Network, client: Client, server: TwinServer) -> None:
        super().__init__(network, client, server)
        self.name = server.twin.name
        self._poked: asyncio.Event | None = None
        self.on_refused: Callable[[], None] = lambda: None
        """Is called once whoever published knows that it was in vain."""

    state = asked("state", MemoryTwin.state)
    create = asked("create", MemoryTwin.create)
    delete = asked("delete", MemoryTwin.delete)
    message = asked("message", MemoryTwin.message)

    @property
    def _memory(self) -> MemoryTwin:
        return self._server.twin

    async def claim(self) -> None:
        await self._memory.claim()

    async def publish(self, events: Sequence[Recorded]) -> None:
        network, server = self._network, self._server
        now = network.loop.time

        def store() -> None:
            server.publish(events, now(), full=network.weather.bad("full stream", self.name, now()))

        try:
            await self._ask("publish", store)
        except Unavailable:
            network.loop.call_later(_KNOWN_AFTER_SECONDS, self.on_refused)
            raise

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

    async def notified(self, timeout_seconds: float) -> None:
        if self._poked is None:
            self._poked = asyncio.Event()
            self._server.listeners.append((self._client.life, self._poked))
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._poked.wait()
        self._poked.clear()


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
