"""One seed: the processes, the servers that they share, the clients, and what goes wrong."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

import structlog

from twinlog.consume import filling
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.log import group_commit
from twinlog.log.ports import Appended, Batch, CheckpointAdvance
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import StreamUnreadable, TwinlogError
from twinlog.model.event import Recorded
from twinlog.model.view import Changes
from twinlog.testing.fakes import SeededIds
from twinlog.testing.simulation.call import Call, method_of, shortened
from twinlog.testing.simulation.calls import Clients
from twinlog.testing.simulation.damage import damage, damage_snapshots, set_back_later
from twinlog.testing.simulation.faults import UNKNOWN, Fault, Weather, newer_event, replica
from twinlog.testing.simulation.hosted import Survey
from twinlog.testing.simulation.invariants import Invariants, Violation, broken, check, heard
from twinlog.testing.simulation.leases import Leases
from twinlog.testing.simulation.log import LogServer
from twinlog.testing.simulation.loop import Life, SimulatedLoop
from twinlog.testing.simulation.messages import MessageServer
from twinlog.testing.simulation.network import Network
from twinlog.testing.simulation.process import Process
from twinlog.testing.simulation.promises import Promises
from twinlog.testing.simulation.scenario import Plan, Scenario
from twinlog.testing.simulation.scene import Scene
from twinlog.testing.simulation.twin import TwinServer
from twinlog.testing.simulation.views import ViewServer

_QUIET_SECONDS = 3.0
"""Without an event for so long it is at rest: longer than any message takes."""
_MOST_STEPS = 2_000
"""Steps that a world at rest may take in that time."""


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
    calls: int
    """Commands of clients."""


class Run:
    def __init__(
        self,
        scenario: Scenario,
        invariants: Callable[[Scene], Invariants],
        seed: int,
        plan: Plan,
        survey: Survey,
    ) -> None:
        """``survey``: of the services that the plan's options make."""
        self.seed = seed
        self.chance = Random(f"{seed}/world")
        self.loop = SimulatedLoop()  # type: ignore[abstract]
        self.weather = Weather()
        self.network = Network(self.loop, self.weather, self.note)
        self._scenario = scenario
        self._plan = plan
        self._trace: list[tuple[float, str, Any]] = []
        self._failure: Exception | None = None

        scene = self.scene = Scene(survey, self.loop.time, plan.options)
        self.keys = scene.keys
        hosted, repeated = scene.survey.hosted, {call.correlation_id for call in plan.calls if call.repeats}
        domain = heard(invariants(scene))
        self.promises = Promises(scene, domain, repeated.__contains__)
        self.logs: Mapping[str, LogServer] = {
            name: LogServer(log, partial(self._committed, log)) for name, log in scene.logs.items()
        }
        self.twins: Mapping[str, TwinServer] = {
            name: TwinServer(twin, partial(self._published, name)) for name, twin in scene.twins.items()
        }
        self.views: Mapping[str, ViewServer] = {
            name: ViewServer(f"{name} views", store, self.logs[hosted[name].spec.log], self._projected)
            for name, store in scene.views.items()
        }
        databases = {name: self.logs[each.spec.log] for name, each in hosted.items()}
        self.leases = Leases(self.network, seed, databases, expire=scenario.leases_expire)
        self.messages = MessageServer(self.network, seed, self.fail)
        self._stores = [*self.logs.values(), *self.twins.values(), *self.views.values()]
        names = {replica(name, number): each for name, each in hosted.items() for number in (1, 2)}
        self._processes = {name: Process(self, each, name) for name, each in names.items()}
        self._clients = Clients(
            self.loop, Random(f"{seed}/clients"), domain, self._edge, self.note, self.fail
        )

    def run(self) -> Result:
        """Plays the plan, heals, and waits for rest."""
        faulty, patience = self._scenario.faulty_seconds, self._scenario.patience_seconds
        with bounds_of(self._plan), defects_told_to(self.fail):
            for process in self._processes.values():
                self.later(self.chance.random() * 0.2, process.start)
            for fault in self._plan.faults:
                self.later(fault.at, partial(self._break, fault))
            self._clients.play(self._plan.calls)
            try:
                self.loop.run(faulty)
                if self._failure is None:
                    self.loop.start(self._end())
                    self.loop.run(faulty + patience + 10)
            except Exception as error:  # also what the domain's invariants raise, at a commit
                self.fail(error)
        steps, seconds = self.loop.steps, self.loop.time()
        trace = [*self._lines()]
        failed = self._failure
        failure = None if failed is None else Failure(*broken(failed), trace)
        result = Result(failure, trace, steps, seconds, len(self._plan.calls))
        self._let_go()
        return result

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Has something happen to the world."""
        self.loop.call_later(seconds, self._guarded, do, context=self.loop.nobody)

    def fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
            self.loop.stop()

    def note(self, who: str, what: Any) -> None:
        """Writes a line of the trace; what is not text is made text where it is shown."""
        self._trace.append((self.loop.time(), who, what))

    def crashed(self, process: Process) -> None:
        """Gives back what a process had, and starts it again later."""
        for server in self._stores:
            self.network.unlock(server, process.life)
        for twin in self.twins.values():
            twin.listeners = [(life, event) for life, event in twin.listeners if life.alive]
        seconds = self.chance.random() * 3
        self.later(seconds, process.start)
        self.later(seconds / 2, self.leases.look)

    # --- what is watched ---

    def _committed(self, log: MemoryLog, batch: Batch, appended: Appended) -> None:
        self._trace.append((self.loop.time(), log.name, (batch, appended)))
        self.promises.committed(log, batch, appended)

    def _published(self, name: str, events: Sequence[Recorded]) -> None:
        self.note(f"{name} twin", f"has {events[0].position} to {events[-1].position}")
        self.promises.published(name, events)

    def _projected(self, changes: Changes, advance: CheckpointAdvance) -> None:
        self.note("views", f"{advance.consumer} has {advance.after + 1} to {advance.upto}")
        self.promises.projected(changes, advance)

    # --- what goes wrong ---

    def _break(self, fault: Fault) -> None:
        self.note("fault", str(fault))
        match fault.kind:
            case "crash":
                client = self._processes[fault.target].client
                client.doomed_after = client.trips + fault.size
            case "freeze":
                self._processes[fault.target].life.frozen_until = self.loop.time() + fault.seconds
                self.later(fault.seconds * 0.5, self.leases.look)
            case "skew":
                process = self._processes[fault.target]
                process.skew = process.clock.skew = float(fault.size)
            case "set back":
                set_back_later(self, fault)
            case "wipe" | "purge" | "roll back":
                damage(self, self.scene.twins[fault.target], fault)
            case "damaged snapshots":
                self._damage_snapshots(fault)
            case "unreadable":
                self._make_unreadable(fault)
            case "clock ahead":
                self.weather.begin(fault)
                self.later(fault.seconds, partial(self._kill, self._processes[fault.target]))
            case "handover":
                self.leases.hand_over(fault.target)
            case "replay":
                self._replay(fault)
            case _:
                self.weather.begin(fault)
                self.leases.look()

    def _kill(self, process: Process) -> None:
        if process.life.alive:
            self.note(process.name, "is killed")
            process.crash()

    def _damage_snapshots(self, fault: Fault) -> None:
        damage_snapshots(self, fault)
        owner = self.scene.survey.owner(fault.target)
        for number in (1, 2):  # who knows a stream reads no snapshot of it
            self._kill(self._processes[replica(owner, number)])

    def _make_unreadable(self, fault: Fault) -> None:
        server = self.logs[fault.target]
        streams = [stream for stream in server.log.streams if stream.type != DEAD_LETTERS.name]
        if not streams:
            return
        stream = streams[-fault.size % len(streams)]
        last = server.log.streams[stream][-1]
        server.unreadable[stream] = last.version + 1, self.loop.time() + fault.seconds
        self.promises.unreadable(last.partition_key)
        id = SeededIds(Random(f"{self.seed}/{fault.at}")).uuid7()
        event = newer_event(last, id)
        server.append(Batch(self.scene.now(), {stream: last.version}, [event]))

    def _replay(self, fault: Fault) -> None:
        log = self.scene.logs[self.scene.survey.host_of(fault.target).spec.log]
        log.checkpoints[fault.target] = max(0, log.checkpoints.get(fault.target, 0) - fault.size)

    def _heal(self) -> None:
        self.note("fault", "none any more")
        self.weather.clear()
        for process in self._processes.values():
            process.life.frozen_until = min(process.life.frozen_until, self.loop.time())
            process.client.doomed_after = None
            process.skew = process.clock.skew = 0.0
        for server in self.logs.values():
            server.unreadable.clear()
        self.leases.heal()

    # --- how it ends ---

    async def _end(self) -> None:
        try:
            self._heal()
            await self._rest()
        except Exception as error:
            self.fail(error)
        self.loop.stop()

    async def _rest(self) -> None:
        """Returns when nothing is left to do, and when that stays so for a while."""
        give_up = self.loop.time() + self._scenario.patience_seconds
        heads: list[int] = []
        steps = self.loop.steps
        while self._unfinished() or heads != self._heads():
            if self.loop.time() > give_up:
                raise Violation("liveness", "; ".join(self._unfinished()) or "events without end")
            heads, steps = self._heads(), self.loop.steps
            await asyncio.sleep(_QUIET_SECONDS)
        steps = self.loop.steps - steps
        check(
            steps < _MOST_STEPS,
            "rest",
            f"{steps} steps in {_QUIET_SECONDS:g} s although there is nothing to do",
        )
        self.promises.at_rest()
        self._clients.at_rest()

    def _unfinished(self) -> list[str]:
        waiting = [] if self._clients.done else ["clients wait"]
        return [*waiting, *self.promises.unfinished()]

    # --- small parts ---

    def _let_go(self) -> None:
        """Cuts the cycles, so that little is left to the garbage collector."""
        self.loop.close()
        for process in self._processes.values():
            vars(process).clear()
        vars(self).clear()

    def _heads(self) -> list[int]:
        return [len(server.log.events) for server in self.logs.values()]

    def _edge(self, call: Call) -> tuple[Life, Callable[[Any, Any], Awaitable[Any]]] | None:
        ready = [p for p in self._processes.values() if p.service == call.service and p.serves]
        if not ready:
            return None
        process = self.chance.choice(ready)
        return process.life, method_of(process.edges, process.service, call.method)

    def _guarded(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            self.fail(error)

    def _lines(self) -> Iterator[str]:
        for at, who, what in self._trace:
            if isinstance(what, tuple):
                yield from (f"{at:8.3f}  {who:20} {line}" for line in _shown(*what))
            else:
                yield f"{at:8.3f}  {who:20} {what}"


def _shown(batch: Batch, appended: Appended) -> Iterator[str]:
    for position, event in enumerate(batch.events, appended.first):
        name = event.type.rpartition(".")[2]
        cause = f"{event.metadata.actor} because of {event.metadata.causation_id}"
        told = f"{position}: {name} of {event.stream.type} {event.stream.id} v{event.version}, by {cause}"
        yield shortened(told)
    for advance in batch.advances:
        yield f"{advance.consumer} has {advance.after + 1} to {advance.upto}"


@contextmanager
def defects_told_to(fail: Callable[[BaseException], None]) -> Iterator[None]:
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
    """No stream is unreadable here, unless an aggregate fails, or a newer version wrote to it."""
    if isinstance(error, StreamUnreadable):
        return UNKNOWN not in str(error)
    return not isinstance(error, TwinlogError)


@contextmanager
def bounds_of(plan: Plan) -> Iterator[None]:
    """Inside the block, writers shut others out after so many lost races as the plan says, and builds of views are
    filled from the log however little it has, two events at a time."""
    rounds = patch.object(group_commit, "_OPTIMISTIC_ROUNDS", plan.optimistic_rounds)
    with rounds, patch.multiple(filling, CHUNK=2, NEAR=0):
        yield
