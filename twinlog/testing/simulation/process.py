"""A replica of a service in a simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from twinlog._aio.retrying import Retrying
from twinlog.consume import Consumer
from twinlog.log.system import StoreClock
from twinlog.log.twin import Twin
from twinlog.memory.keys import MemoryKeys
from twinlog.model.effects import Effects
from twinlog.model.errors import Unavailable
from twinlog.model.policies import Policies
from twinlog.service.environment import Environment
from twinlog.service.service import Service
from twinlog.service.wiring import servicers
from twinlog.testing.simulation.clocks import SeededIds, SkewedClock
from twinlog.testing.simulation.faults import Weather
from twinlog.testing.simulation.hosted import Hosted
from twinlog.testing.simulation.leases import Leases
from twinlog.testing.simulation.log import LogServer, RemoteLog
from twinlog.testing.simulation.loop import Life, SimulatedLoop
from twinlog.testing.simulation.network import Client, Network
from twinlog.testing.simulation.outside import troubled
from twinlog.testing.simulation.twin import RemoteTwin, TwinServer
from twinlog.testing.simulation.views import RemoteViews, ViewServer

_SNAPSHOT_EVERY = 3
"""Versions: so that short streams have snapshots too."""


class Surroundings(Protocol):
    """What a process has around it."""

    seed: int
    loop: SimulatedLoop
    network: Network
    weather: Weather
    logs: Mapping[str, LogServer]
    twins: Mapping[str, TwinServer]
    views: Mapping[str, ViewServer]
    keys: MemoryKeys
    leases: Leases

    def note(self, who: str, what: Any) -> None:
        """Writes a line of the trace."""

    def crashed(self, process: Process) -> None:
        """A process has ended; it starts again."""

    def fail(self, error: BaseException) -> None:
        """A process has met what no process may meet."""


class _Troubled(Service):
    """A service whose providers have their faults, too."""

    def __init__(self, world: Surroundings, *named: Any, **parts: Any) -> None:
        self._world = world
        super().__init__(*named, **parts)

    def _consumer(self, asked: Policies | Effects | Consumer) -> Consumer:
        if not isinstance(asked, Effects):
            return super()._consumer(asked)
        name, world = asked.consumer, self._world
        return super()._consumer(
            troubled(
                asked,
                lambda kind: world.weather.bad(kind, name, world.loop.time()),
                lambda what: world.note(name, what),
            )
        )


@dataclass(eq=False)
class Process:
    """A replica of a service; restarted after each crash."""

    world: Surroundings
    hosted: Hosted
    name: str
    life: Life = field(init=False)
    edges: Sequence[Any] = ()
    """Its servicers, while it serves."""
    serves: bool = False
    lives: int = 0
    skew: float = 0.0

    @property
    def service(self) -> str:
        """What it is a replica of."""
        return self.hosted.name

    def start(self) -> None:
        """Begins a new life, with nothing remembered."""
        world = self.world
        self.lives += 1
        self.life = Life(self.name)
        chance = Random(f"{world.seed}/{self.name}/{self.lives}")
        self.client = Client(self.life, chance, self.crash)
        self.clock = SkewedClock(world.loop)
        self.clock.skew = self.skew
        world.loop.start(self._main(chance), self.life)

    def crash(self) -> None:
        """Ends its life, between two of its steps."""
        self.life.alive = False
        self.edges, self.serves = (), False
        self.world.crashed(self)

    async def _main(self, chance: Random) -> None:
        try:
            await self._run(SeededIds(chance))
        except Exception as error:
            self.world.fail(error)

    async def _run(self, ids: SeededIds) -> None:
        world, network, client, spec = self.world, self.world.network, self.client, self.hosted.spec
        twins = {log: RemoteTwin(network, client, server) for log, server in world.twins.items()}
        log = RemoteLog(network, client, world.logs[spec.log])
        holder = f"{self.name}, life {self.lives}"
        jitter = Random(f"{world.seed}/{self.name}/{self.lives}/jitter")
        clock = StoreClock(log.time, self.clock, passed=world.loop.time, randomness=jitter)
        await Retrying(
            say_failing=lambda _: None, say_working=lambda: None, on=(Unavailable,), randomness=jitter
        )(clock.measure)
        service = _Troubled(
            world,
            spec.name,
            log,
            Environment(
                twin=twins.__getitem__,
                lease=lambda work: world.leases.lease(client, spec.name, work, holder, jitter),
                clock=clock,
                ids=ids,
                on_crash=lambda _task, error: world.fail(error),
                randomness=jitter,
                keys=world.keys,
                open_log=self._open_log,
            ),
            schema=spec.schema,
            aggregates=spec.aggregates,
            signals={"clock": clock},
        )
        self.hosted.configure(service)
        service.writer._snapshots._every = _SNAPSHOT_EVERY
        async with service.running():
            service.start("clock", clock.run())
            views = RemoteViews(network, client, world.views[spec.name])
            self.edges, self.serves = servicers(self.hosted.wire(service, views), self.hosted.name), True
            await asyncio.Event().wait()

    @asynccontextmanager
    async def _open_log(self, log: str, _twin: Twin) -> AsyncIterator[RemoteLog]:
        yield RemoteLog(self.world.network, self.client, self.world.logs[log])
