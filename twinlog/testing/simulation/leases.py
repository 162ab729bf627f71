"""Leases: granted at will, so that several replicas may hold one and lose it late; or rows that expire."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from random import Random

from twinlog._aio.retrying import Randomness
from twinlog.log.lease import Answer, ExpiringLease, Lease
from twinlog.memory.lease import MemoryLeases
from twinlog.testing.simulation.faults import replica
from twinlog.testing.simulation.loop import Life, SimulatedLoop
from twinlog.testing.simulation.network import Client, Network, Store

_AHEAD = timedelta(hours=1)


class Leases:
    def __init__(self, network: Network, seed: int, stores: Mapping[str, Store], *, expire: bool) -> None:
        """``stores``: the databases, by service. ``expire``: as in :attr:`Scenario.leases_expire`."""
        self._network = network
        self._seed = seed
        self._stores = stores
        self._rows = {name: MemoryLeases(partial(self._time, name)) for name in stores} if expire else {}
        self._granted: dict[tuple[str, str], LeaseServer] = {}

    def lease(self, client: Client, service: str, work: str, holder: str, randomness: Randomness) -> Lease:
        """That of a replica on a piece of work of its service; ``holder``: this life of it."""
        if rows := self._rows.get(service):
            return RowLease(self._network, client, self._stores[service], rows, work, holder, randomness)
        return RemoteLease(client.life, self._server(service, work))

    def look(self) -> None:
        """Lets every lease find a holder that works."""
        for server in self._granted.values():
            server.look()

    def hand_over(self, service: str) -> None:
        """Takes all leases of a service from those who have them."""
        if rows := self._rows.get(service):
            rows.rows.clear()
        for (owner, _), server in self._granted.items():
            if owner == service:
                server.hand_over()

    def heal(self) -> None:
        for server in self._granted.values():
            server.heal()

    def _server(self, service: str, work: str) -> LeaseServer:
        key, network = (service, work), self._network
        if key not in self._granted:
            chance = Random(f"{self._seed}/{service}/{work}")
            shared = partial(self._bad, "shared leases", service)
            self._granted[key] = LeaseServer(network.loop, chance, shared)
        return self._granted[key]

    def _time(self, service: str) -> datetime:
        ahead = any(self._bad("clock ahead", replica(service, number)) for number in (1, 2))
        return self._network.time() + (_AHEAD if ahead else timedelta())

    def _bad(self, kind: str, target: str) -> bool:
        return self._network.weather.bad(kind, target, self._network.loop.time())


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


class RowLease(ExpiringLease):
    """A lease as a row of a store, a round trip away."""

    def __init__(
        self,
        network: Network,
        client: Client,
        store: Store,
        leases: MemoryLeases,
        name: str,
        holder: str,
        randomness: Randomness,
    ) -> None:
        super().__init__(name, holder, randomness=randomness)
        self._network = network
        self._client = client
        self._store = store
        self._leases = leases

    async def take_row(self, name: str, holder: str, seconds: float) -> Answer:
        """Raises Unavailable."""
        return await self._network.ask(
            self._client, self._store, f"take {name}", lambda: self._leases.take(name, holder, seconds)
        )

    async def give_up_row(self, name: str, holder: str) -> None:
        """Raises Unavailable."""
        await self._network.ask(
            self._client, self._store, f"give up {name}", lambda: self._leases.give_up(name, holder)
        )


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
