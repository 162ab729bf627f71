"""Leases that several replicas may hold for a while, and lose late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from twinlog.testing.simulation.loop import Life, SimulatedLoop


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
