"""One seed: the shop's processes, the servers that they share, the clients, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, NamedTuple

import structlog

import customer_svc.app
import order_svc.app
import projector.app
import saga_orchestrator.app
from tests.simulation import faults, tally
from tests.simulation.faults import FAULTY_UNTIL, LOGS, Fault, Weather
from tests.simulation.loop import Life, SimulatedLoop
from tests.simulation.model import Model, check
from tests.simulation.network import Client, Network, Violation
from tests.simulation.ports import (
    LeaseServer,
    LogServer,
    RemoteLease,
    RemoteLog,
    RemoteTwin,
    RemoteViews,
    SeededIds,
    SkewedClock,
    TwinServer,
    ViewServer,
)
from tests.simulation.workload import Call, Clients, script
from twinlog import Recorded, Schema, Service, TwinlogError, Unavailable
from twinlog._aio.retrying import Retrying
from twinlog.log import group_commit
from twinlog.log.repair import difference, plan
from twinlog.model.errors import StreamUnreadable
from twinlog.testing import MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import (
    AnyAggregate,
    Appended,
    Batch,
    Changes,
    CheckpointAdvance,
    StoreClock,
)

PATIENCE = 240.0
"""Seconds after healing within which the shop has to come to rest."""

_QUIET = 3.0
"""Seconds without an event after which it is at rest: longer than any message takes."""
_MOST_STEPS = 2_000
"""Steps that a shop at rest may take in that time."""
_LOG_OF = {
    "order_svc": "orders",
    "customer_svc": "customers",
    "saga_orchestrator": "sagas",
    "tally": "tallies",
    "projector": "projector",
}
_AGGREGATES: Mapping[str, Sequence[AnyAggregate]] = {
    "order_svc": order_svc.app.SPEC.aggregates,
    "customer_svc": customer_svc.app.SPEC.aggregates,
    "saga_orchestrator": saga_orchestrator.app.SPEC.aggregates,
    "tally": (tally.TALLY,),
}
_IN_A_BACKUP = ("events", "checkpoints", "handled", "timers")
"""Not the outcomes of requests, which no repair can restore: their clients would be answered anew."""
_SCHEMA = Schema()


class Plan(NamedTuple):
    """Everything that a seed decides, besides how long messages take."""

    calls: Sequence[Call]
    faults: Sequence[Fault]
    order_deadline: float
    """Seconds that an order may stay PENDING."""
    optimistic_rounds: int
    """After how many lost races a writer shuts the others out."""


class Failure(NamedTuple):
    """A promise that was broken, and what led to it."""

    promise: str
    facts: str
    trace: Sequence[str]


class Result(NamedTuple):
    """What a run came to."""

    failure: Failure | None
    trace: Sequence[str]
    steps: int
    seconds: float
    """Of simulated time."""


def plan_of(seed: int) -> Plan:
    """What a seed decides."""
    chance = Random(f"{seed}/plan")
    deadline = chance.choice((0.5, 3.0, 30.0))
    return Plan(script(chance), faults.plan(chance), deadline, chance.choice((1, 3)))


def run(seed: int, plan: Plan | None = None) -> Result:
    """Runs a seed, whole or with another plan."""
    return World(seed, plan or plan_of(seed)).run()


@dataclass(eq=False)
class Process:
    """A replica of a service; restarted after each crash."""

    world: World
    name: str
    life: Life = field(init=False)
    edge: Any = None
    lives: int = 0
    skew: float = 0.0

    @property
    def service(self) -> str:
        """What it is a replica of."""
        return self.name.partition(".")[0]

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

    def crash(self, restart_after: float | None = None) -> None:
        """Ends its life, between two of its steps."""
        world = self.world
        self.life.alive = False
        self.edge = None
        for server in world.stores:
            world.network.unlock(server, self.life)
        for twin in world.twins.values():
            twin.listeners = [(life, event) for life, event in twin.listeners if life.alive]
        seconds = world.chance.random() * 3 if restart_after is None else restart_after
        world.later(seconds, self.start)
        world.later(seconds / 2, world.look_at_leases)

    async def _main(self, chance: Random) -> None:
        try:
            await self._run(SeededIds(chance))
        except Exception as error:
            self.world.fail(error)

    async def _run(self, ids: SeededIds) -> None:
        world, network, client = self.world, self.world.network, self.client
        twins = {log: RemoteTwin(network, client, server) for log, server in world.twins.items()}
        log = RemoteLog(network, client, world.logs[_LOG_OF[self.service]])
        jitter = Random(f"{world.seed}/{self.name}/{self.lives}/jitter")
        clock = StoreClock(log.time, self.clock, passed=world.loop.time, randomness=jitter)
        await Retrying(
            say_failing=lambda _: None, say_working=lambda: None, on=(Unavailable,), randomness=jitter
        )(clock.measure)

        def lease(work: str) -> RemoteLease:
            return RemoteLease(self.life, world.lease(self.service, work))

        service = Service(
            self.service,
            log,
            twin=twins.__getitem__,
            lease=lease,
            schema=_SCHEMA,
            clock=clock,
            ids=ids,
            on_crash=lambda _task, error: world.fail(error),
            aggregates=_AGGREGATES.get(self.service, ()),
            signals={"clock": clock},
            randomness=jitter,
        )
        service.writer._snapshots._every = 3
        async with service.running():
            service.start("clock", clock.run())
            match self.service:
                case "order_svc":
                    self.edge = order_svc.app.wire(service, timedelta(seconds=world.plan.order_deadline))
                case "customer_svc":
                    self.edge = customer_svc.app.wire(service)
                case "saga_orchestrator":
                    saga_orchestrator.app.wire(
                        service, RemoteViews(network, client, world.views[self.service])
                    )
                case "projector":
                    projector.app.wire(service, RemoteViews(network, client, world.views[self.service]))
                case "tally":
                    tally.wire(service)
            await asyncio.Event().wait()


class World:
    """Runs one plan."""

    def __init__(self, seed: int, plan: Plan) -> None:
        self.seed = seed
        self.plan = plan
        self.chance = Random(f"{seed}/world")
        self.loop = SimulatedLoop()  # type: ignore[abstract]
        self.weather = Weather()
        self.network = Network(self.loop, self.weather, self.note)
        self._trace: list[tuple[float, str, Any]] = []
        self._failure: Exception | None = None
        self._leases: dict[tuple[str, str], LeaseServer] = {}

        logs = {name: MemoryLog(name) for name in LOGS}
        twins = {name: MemoryTwin(name) for name in LOGS}
        views = {
            service: MemoryViews(logs[_LOG_OF[service]]) for service in ("projector", "saga_orchestrator")
        }
        self.model = Model(logs, twins, views, self.fail, self.loop.time, plan.order_deadline)
        self.logs = {name: LogServer(log, partial(self._committed, log)) for name, log in logs.items()}
        self.twins = {name: TwinServer(twin, partial(self._published, name)) for name, twin in twins.items()}
        self.views = {
            service: ViewServer(f"{service} views", of, self.logs[_LOG_OF[service]], self._projected)
            for service, of in views.items()
        }
        self.stores = [*self.logs.values(), *self.twins.values(), *self.views.values()]
        self.processes = {name: Process(self, name) for name in faults.PROCESSES}
        self.clients = Clients(self.loop, Random(f"{seed}/clients"), self.model, self._edge, self.note)

    def run(self) -> Result:
        """Plays the plan, heals, and waits for rest."""
        with _optimistic_rounds(self.plan.optimistic_rounds), _defects_told_to(self.fail):
            for process in self.processes.values():
                self.later(self.chance.random() * 0.2, process.start)
            for fault in self.plan.faults:
                self.later(fault.at, partial(self._break, fault))
            self.clients.play(self.plan.calls)
            try:
                self.loop.run(FAULTY_UNTIL)
                if self._failure is None:
                    self.loop.start(self._end())
                    self.loop.run(FAULTY_UNTIL + PATIENCE + 10)
            except Violation as violation:
                self.fail(violation)
        result = Result(self._failed(), [*self._lines()], self.loop.steps, self.loop.time())
        self._let_go()
        return result

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Has something happen to the world."""
        self.loop.call_later(seconds, self._guarded, do, context=self.loop.nobody)

    def fail(self, error: BaseException) -> None:
        """Ends the run."""
        if self._failure is None:
            self._failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self.loop.stop()

    def note(self, who: str, what: Any) -> None:
        """Writes a line of the trace; what is not text is made text where it is shown."""
        self._trace.append((self.loop.time(), who, what))

    def lease(self, service: str, work: str) -> LeaseServer:
        """The lease on a service's piece of work."""
        key = (service, work)
        if key not in self._leases:

            def shared() -> bool:
                return self.weather.bad("shared leases", service, self.loop.time())

            self._leases[key] = LeaseServer(self.loop, Random(f"{self.seed}/{service}/{work}"), shared)
        return self._leases[key]

    def look_at_leases(self) -> None:
        """Lets every lease find a holder that works."""
        for lease in self._leases.values():
            lease.look()

    # --- what is watched ---

    def _committed(self, log: MemoryLog, batch: Batch, appended: Appended) -> None:
        self._trace.append((self.loop.time(), log.name, (batch, appended)))
        self.model.committed(log, batch, appended)

    def _published(self, name: str, events: Sequence[Recorded]) -> None:
        self.note(f"{name} twin", f"has {events[0].position} to {events[-1].position}")
        self.model.published(name, events)

    def _projected(self, changes: Changes, advance: CheckpointAdvance) -> None:
        self.note("views", f"{advance.consumer} has {advance.after + 1} to {advance.upto}")
        self.model.projected(changes, advance)

    # --- what goes wrong ---

    def _break(self, fault: Fault) -> None:
        self.note("fault", str(fault))
        match fault.kind:
            case "crash":
                client = self.processes[fault.target].client
                client.doomed_after = client.trips + fault.size
            case "freeze":
                self._freeze(self.processes[fault.target].life, fault.seconds)
            case "skew":
                process = self.processes[fault.target]
                process.skew = process.clock.skew = float(fault.size)
            case "set back":
                self._remember(fault)
            case "wipe" | "purge" | "roll back":
                self._damage(self.twins[fault.target].twin, fault)
            case "handover":
                for (service, _), lease in self._leases.items():
                    if service == fault.target:
                        lease.hand_over()
            case "replay":
                service = fault.target.partition(".")[0]
                checkpoints = self.logs[_LOG_OF[service]].log.checkpoints
                checkpoints[fault.target] = max(0, checkpoints.get(fault.target, 0) - fault.size)
            case _:
                self.weather.begin(fault)
                self.look_at_leases()

    def _freeze(self, life: Life, seconds: float) -> None:
        life.frozen_until = self.loop.time() + seconds
        self.later(seconds * 0.5, self.look_at_leases)

    def _damage(self, twin: MemoryTwin, fault: Fault) -> None:
        if twin.messages is None or twin.name in self.model.forked:
            return
        match fault.kind:
            case "wipe":
                twin.messages = None
            case "purge":
                twin.messages.clear()
                twin.wake_deliveries()
                return
            case "roll back":
                twin.last = max(0, twin.last - fault.size)
                twin.messages = {n: message for n, message in twin.messages.items() if n <= twin.last}
        twin.delete_consumers()

    def _remember(self, fault: Fault) -> None:
        """Makes a backup of a database, and puts it back later."""
        log = self.logs[fault.target].log
        kept = {name: copy(getattr(log, name)) for name in _IN_A_BACKUP}
        service = next(service for service, of in _LOG_OF.items() if of == fault.target)
        views = self.views[service].views if service in self.views else None
        tables = {name: dict(rows) for name, rows in views.tables.items()} if views else {}
        checkpoints = dict(views.checkpoints) if views else {}

        def put_back() -> None:
            twin, head = self.twins[log.name].twin, len(log.events)
            whole = twin.messages is not None and len(twin.messages) == twin.last == head
            if log.name in self.model.forked or not whole:
                return  # what the stream does not have either would be gone for good
            self.note("fault", f"{log.name} is set back from {head} to {len(kept['events'])}")
            for name, value in kept.items():
                setattr(log, name, value)
            log.streams = {}
            for event in log.events:
                log.streams.setdefault(event.stream, []).append(event)
            if views:
                views.tables, views.checkpoints = tables, checkpoints
            self.logs[log.name].failovers += 1
            self.model.set_back(log.name, service)
            self.later(0.5 + self.chance.random() * 3, partial(self._repair, log.name))

        self.later(fault.seconds, put_back)

    def _repair(self, name: str) -> None:
        if name in self.model.forked:
            self.loop.start(self._repairing(name))

    async def _repairing(self, name: str) -> None:
        try:
            log = self.logs[name].log
            found = await difference(log, self.twins[name].twin)
            if found.since:
                ours = log.events[found.since - 1 :]
                versions = {stream: len(events) for stream, events in log.streams.items()}
                log.repair(plan(ours, found.theirs, versions, log.checkpoints))
            self.note(name, f"is repaired from {found.since} on")
            self.model.repaired(name)
        except Exception as error:
            self.fail(error)

    def _heal(self) -> None:
        self.note("fault", "none any more")
        self.weather.clear()
        for process in self.processes.values():
            process.life.frozen_until = min(process.life.frozen_until, self.loop.time())
            process.client.doomed_after = None
            process.skew = process.clock.skew = 0.0
        for lease in self._leases.values():
            lease.heal()

    async def _end(self) -> None:
        try:
            self._heal()
            await self._rest()
        except Exception as error:
            self.fail(error)
        self.loop.stop()

    async def _rest(self) -> None:
        """Returns when nothing is left to do, and when that stays so for a while."""
        give_up = self.loop.time() + PATIENCE
        heads: list[int] = []
        steps = self.loop.steps
        while self._unfinished() or heads != self._heads():
            if self.loop.time() > give_up:
                raise Violation("liveness", "; ".join(self._unfinished()) or "events without end")
            heads, steps = self._heads(), self.loop.steps
            await asyncio.sleep(_QUIET)
        steps = self.loop.steps - steps
        check(steps < _MOST_STEPS, "rest", f"{steps} steps in {_QUIET:g} s although there is nothing to do")
        self.model.at_rest()
        self.clients.at_rest()

    def _unfinished(self) -> list[str]:
        waiting = [] if self.clients.done else ["clients wait"]
        return [*waiting, *self.model.unfinished()]

    # --- small parts ---

    def _let_go(self) -> None:
        """Cuts the cycles, so that little is left to the garbage collector."""
        self.loop.close()
        for process in self.processes.values():
            vars(process).clear()
        vars(self).clear()

    def _heads(self) -> list[int]:
        return [len(server.log.events) for server in self.logs.values()]

    def _edge(self, service: str) -> tuple[Life, Any] | None:
        ready = [p for p in self.processes.values() if p.service == service and p.edge is not None]
        if not ready:
            return None
        process = self.chance.choice(ready)
        return process.life, process.edge

    def _guarded(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Violation as violation:
            self.fail(violation)

    def _failed(self) -> Failure | None:
        if self._failure is None:
            return None
        if isinstance(self._failure, Violation):
            promise, facts = self._failure.args
            return Failure(promise, facts, [*self._lines()])
        return Failure("no crash", f"{type(self._failure).__name__}: {self._failure}", [*self._lines()])

    def _lines(self) -> Iterator[str]:
        for at, who, what in self._trace:
            if isinstance(what, tuple):
                yield from (f"{at:8.3f}  {who:20} {line}" for line in _shown(who, *what))
            else:
                yield f"{at:8.3f}  {who:20} {what}"


def _shown(log: str, batch: Batch, appended: Appended) -> Iterator[str]:
    for position, event in enumerate(batch.events, appended.first):
        name = event.type.rpartition(".")[2]
        cause = f"{event.metadata.actor} because of {event.metadata.causation_id}"
        yield f"{position}: {name} of {event.stream.type} {event.stream.id[-4:]} v{event.version}, by {cause}"
    for advance in batch.advances:
        yield f"{advance.consumer} has {advance.after + 1} to {advance.upto}"


@contextmanager
def _defects_told_to(fail: Callable[[BaseException], None]) -> Iterator[None]:
    """Silences the kernel's logs, besides the defects that it survives and logs."""

    def spy(_logger: Any, _method: str, line: Any) -> Any:
        told = line.get("exc_info")
        error = told if isinstance(told, BaseException) else sys.exc_info()[1]
        if told and error is not None and _is_defect(error):
            fail(error)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure([spy], structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**before)


def _is_defect(error: BaseException) -> bool:
    """No stream is unreadable here, unless an aggregate fails."""
    return isinstance(error, StreamUnreadable) or not isinstance(error, TwinlogError)


@contextmanager
def _optimistic_rounds(rounds: int) -> Iterator[None]:
    before = group_commit._OPTIMISTIC_ROUNDS
    group_commit._OPTIMISTIC_ROUNDS = rounds
    try:
        yield
    finally:
        group_commit._OPTIMISTIC_ROUNDS = before
