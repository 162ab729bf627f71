"""Runs many seeds, one after the other."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.simulation.world import Failure, run

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

    def __add__(self, other: Sweep) -> Sweep:
        return Sweep(
            self.seeds + other.seeds,
            self.steps + other.steps,
            self.seconds + other.seconds,
            [*self.failures, *other.failures],
        )


def sweep(seeds: Iterable[int]) -> Sweep:
    """Runs seeds up to the first that fails."""
    total = Sweep()
    with _rare_collections():
        for seed in seeds:
            result = run(seed)
            failures = [(seed, result.failure)] if result.failure else []
            total += Sweep(1, result.steps, result.seconds, failures)
            if failures:
                break
            if total.seeds % _COLLECT_EVERY == 0:
                gc.collect()
    return total


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
