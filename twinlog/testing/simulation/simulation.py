"""Many seeds of a scenario, one after the other; a failing one is cut down to what it needs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from twinlog.testing.simulation.invariants import Invariants
from twinlog.testing.simulation.run import Failure, Result, Run
from twinlog.testing.simulation.scenario import Plan, Scenario, planned
from twinlog.testing.simulation.scene import Scene

T = TypeVar("T")
_COLLECT_EVERY = 50


@dataclass(frozen=True)
class Sweep:
    """What some seeds came to."""

    seeds: int = 0
    steps: int = 0
    seconds: float = 0.0
    """Simulated."""
    failures: Sequence[tuple[int, Failure]] = ()
    """By seed."""
    calls: int = 0
    """Commands of clients."""

    @property
    def idle(self) -> str:
        """Why it shows nothing, and what to do; empty where it shows something."""
        if not self.seeds:
            return "no seed was run; give some, as seeds=range(100)"
        if not self.calls and not self.failures:
            return (
                "no seed has a command, so that nothing was asked of the services; let the script give calls"
            )
        return ""

    def __add__(self, other: Sweep) -> Sweep:
        return Sweep(
            self.seeds + other.seeds,
            self.steps + other.steps,
            self.seconds + other.seconds,
            [*self.failures, *other.failures],
            self.calls + other.calls,
        )


@dataclass(frozen=True)
class Simulation:
    """A scenario with what must hold in it."""

    scenario: Scenario
    invariants: Callable[[Scene], Invariants] = Invariants
    """Makes the account of one run; a class derived from :class:`Invariants`."""

    def plan(self, seed: int) -> Plan:
        plan, _ = planned(self.scenario, seed)
        return plan

    def run(self, seed: int, plan: Plan | None = None) -> Result:
        """Runs a seed, whole or with another plan; options are made anew, since they may hold what a run changes."""
        fresh, survey = planned(self.scenario, seed)
        plan = plan._replace(options=fresh.options) if plan else fresh
        return Run(self.scenario, self.invariants, seed, plan, survey).run()

    def sweep(self, seeds: Iterable[int]) -> Sweep:
        """Runs seeds up to the first that fails."""
        total = Sweep()
        with _rare_collections():
            for seed in seeds:
                result = self.run(seed)
                failures = [(seed, result.failure)] if result.failure else []
                total += Sweep(1, result.steps, result.seconds, failures, result.calls)
                if failures:
                    break
                if total.seeds % _COLLECT_EVERY == 0:
                    gc.collect()
        return total

    def shrunk(self, seed: int, promise: str, *, seconds: float = 20.0) -> Plan:
        """The smallest plan found within a time, of the machine's, that breaks the same promise."""
        return shrunk(lambda plan: self.run(seed, plan).failure, self.plan(seed), promise, seconds=seconds)

    def explained(self, seed: int, promise: str) -> str:
        """The least that leads to a failure, in words: its trace, and the promise."""
        least = self.shrunk(seed, promise)
        failure = self.run(seed, least).failure
        assert failure is not None
        takes = f"It takes {_counted(least.calls, 'command')} and {_counted(least.faults, 'fault')}:"
        return "\n".join([takes, "", *failure.trace, "", f"{failure.promise}: {failure.facts}"])


def _counted(things: Sequence[object], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


@contextmanager
def _rare_collections() -> Iterator[None]:
    """A world is one large cycle: looking for others while it runs only costs."""
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


class SimulationFailed(AssertionError):
    """A seed breaks a promise; the message has the shrunk trace and how to replay it."""

    def __init__(self, seed: int, promise: str, facts: str, explained: str) -> None:
        super().__init__(
            f"seed {seed} breaks a promise ({promise}): {facts}\n\n{explained}\n\n"
            f"replay: simulate(..., seeds=[{seed}])"
        )
        self.seed = seed
        self.promise = promise
        self.facts = facts


def simulate(
    scenario: Scenario,
    invariants: Callable[[Scene], Invariants] = Invariants,
    *,
    seeds: Iterable[int] = range(100),
) -> Sweep:
    """Runs seeds of a scenario, each another world of two replicas per service in which everything goes wrong.

    Processes crash before and after what they send, freeze, and have wrong clocks; answers get lost and effects come
    late; deliveries break off and come twice; streams and databases lose what they had and are repaired; leases are
    shared. A seed is one run, wherever it runs. Raises :class:`SimulationFailed` at the first seed that breaks a
    promise, with the few commands and faults that it takes, and ValueError where there are no seeds, or no commands.
    """
    simulation = Simulation(scenario, invariants)
    swept = simulation.sweep(seeds)
    for seed, failure in swept.failures:
        explained = simulation.explained(seed, failure.promise)
        raise SimulationFailed(seed, failure.promise, failure.facts, explained)
    if swept.idle:
        raise ValueError(swept.idle)
    return swept


def shrunk(run: Callable[[Plan], Failure | None], plan: Plan, promise: str, *, seconds: float) -> Plan:
    """The smallest plan found within a time that breaks the same promise."""
    give_up = time.monotonic() + seconds

    def fails(candidate: Plan) -> bool:
        if time.monotonic() > give_up:
            return False
        failure = run(candidate)
        return failure is not None and failure.promise == promise

    while True:
        less = _fewer_calls(_fewer_faults(plan, fails), fails)
        if less == plan:
            return plan
        plan = less


def _fewer_faults(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    return plan._replace(faults=_least(plan.faults, lambda some: fails(plan._replace(faults=some))))


def _fewer_calls(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    return plan._replace(calls=_least(plan.calls, lambda some: fails(plan._replace(calls=some))))


def _least(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """A subset that still fails: halves are left out, then quarters … then single ones."""
    size = max(1, len(items) // 2)
    while items:
        start = 0
        while start < len(items):
            rest = [*items[:start], *items[start + size :]]
            if fails(rest):
                items = rest
            else:
                start += size
        if size == 1:
            break
        size //= 2
    return items
