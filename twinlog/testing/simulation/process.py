"""A replica of a service in a simulated world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from twinlog._aio.retrying import Retrying
from twinlog.consume import Consumer
from twinlog.log.relay import Relay
from twinlog.log.system import StoreClock
from twinlog.log.twin import Twin
from twinlog.model.effects import Attempt, Effects, Function
from twinlog.model.errors import Unavailable
from twinlog.model.policies import Policies
from twinlog.service.environment import Environment
from twinlog.service.service import Service
from twinlog.service.wiring import servicers
from twinlog.testing.fakes import SeededIds, SkewedClock
from twinlog.testing.simulation.hosted import Hosted
from twinlog.testing.simulation.invariants import check
from twinlog.testing.simulation.log import RemoteLog
from twinlog.testing.simulation.loop import Life
from twinlog.testing.simulation.messages import RemoteMessages
from twinlog.testing.simulation.network import Client
from twinlog.testing.simulation.twin import RemoteTwin
from twinlog.testing.simulation.views import RemoteViews

if TYPE_CHECKING:
    from twinlog.testing.simulation.run import Run

_SNAPSHOT_EVERY = 3
"""Versions: so that short streams have snapshots too."""


class _Troubled(Service):
    """A service whose providers have their faults, too."""

    def __init__(self, world: Run, *named: Any, **parts: Any) -> None:
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

    world: Run
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
                messages=RemoteMessages(world.messages, self.life),
                keys=world.keys,
                open_log=self._open_log,
            ),
            schema=spec.schema,
            aggregates=spec.aggregates,
            signals={"clock": clock},
        )
        self.hosted.configure(service)
        twins[spec.log].on_refused = partial(_hears_of_it, service.relay)
        service.writer._snapshots._every = _SNAPSHOT_EVERY
        async with service.running():
            service.start("clock", clock.run())
            views = RemoteViews(network, client, world.views[spec.name])
            hosted = self.hosted
            self.edges = servicers(hosted.wire(service, views), hosted.name, hosted.wire)
            self.serves = True
            await asyncio.Event().wait()

    @asynccontextmanager
    async def _open_log(self, log: str, _twin: Twin) -> AsyncIterator[RemoteLog]:
        yield RemoteLog(self.world.network, self.client, self.world.logs[log])


def _hears_of_it(relay: Relay) -> None:
    """Raises Violation where a relay has published in vain and does not say so."""
    told = relay.dumped()
    check(
        told["problem"] is not None or not told["here"],
        "word",
        f"the relay of {told['log']} is refused, and its health says nothing",
    )


def troubled(effects: Effects, bad: Callable[[str], bool], note: Callable[[str], None]) -> Effects:
    """The same effects, whose calls meet what is wrong at that time.

    ``bad``: whether a fault of that kind is on; ``note`` is told of what it did. What is wrong is a TimeoutError to
    whoever calls, as every table takes that for transient.
    """
    rules = {event: _called(function, bad, note) for event, function in effects.rules.items()}
    return replace(effects, rules=rules)


def _called(function: Function, bad: Callable[[str], bool], note: Callable[[str], None]) -> Function:
    async def call(event: Any, attempt: Attempt) -> Any:
        if bad("provider down"):
            raise TimeoutError("the provider is down")
        answer = await function(event, attempt)
        if bad("lost answers"):
            note(f"{attempt.event.address}: it was called, and its answer is lost")
            raise TimeoutError("the answer is lost")
        return answer

    return call
