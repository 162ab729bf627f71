"""Seeds as one call in a test."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twinlog.testing.simulation.invariants import Invariants
from twinlog.testing.simulation.scenario import Scenario
from twinlog.testing.simulation.scene import Scene
from twinlog.testing.simulation.simulation import Simulation, Sweep


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
