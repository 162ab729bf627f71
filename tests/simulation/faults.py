"""What goes wrong, and when: an explicit list, made from the seed, that can be cut down to what matters."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

LOGS = ("orders", "customers", "sagas", "tallies", "projector")
_BUSY = LOGS[:4]
VIEW_STORES = ("projector views", "saga_orchestrator views")
SERVICES = ("order_svc", "customer_svc", "saga_orchestrator", "projector", "tally")
PROCESSES = tuple(f"{service}.{number}" for service in SERVICES for number in (1, 2))
STORES = (*_BUSY, *_BUSY, *(f"{log} twin" for log in _BUSY), *VIEW_STORES)
CONSUMERS = (
    "order_svc.customers",
    "order_svc.sagas",
    "customer_svc.orders",
    "customer_svc.sagas",
    "saga_orchestrator.orders",
    "saga_orchestrator.customers",
)
FAULTY_UNTIL = 12.0
"""Seconds after which nothing new goes wrong, and what went wrong is put right."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    at: float
    kind: str
    target: str
    seconds: float = 0.0
    size: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.target} for {self.seconds:.2f} s, size {self.size}"


class Kind(NamedTuple):
    """How faults of a kind are drawn."""

    targets: tuple[str, ...]
    longest: float = 0.0
    smallest: int = 0
    largest: int = 0
    weight: int = 1


KINDS = {
    "crash": Kind(PROCESSES, longest=4.0, smallest=1, largest=30, weight=5),
    "freeze": Kind(PROCESSES, longest=9.0, weight=2),
    "skew": Kind(PROCESSES, smallest=-240, largest=240, weight=2),
    "outage": Kind(STORES, longest=5.0, weight=2),
    "lost replies": Kind(STORES, longest=6.0, weight=3),
    "late effects": Kind(STORES, longest=6.0, weight=3),
    "slowness": Kind(STORES, longest=6.0, weight=3),
    "wipe": Kind(_BUSY),
    "purge": Kind(_BUSY),
    "roll back": Kind(_BUSY, smallest=1, largest=8),
    "broken deliveries": Kind(_BUSY, longest=8.0, weight=2),
    "doubled deliveries": Kind(_BUSY, longest=8.0),
    "lost pokes": Kind(_BUSY, longest=10.0),
    "shared leases": Kind(SERVICES, longest=10.0, weight=3),
    "handover": Kind(SERVICES, weight=2),
    "set back": Kind((*_BUSY, "projector"), longest=4.0, weight=2),
    "replay": Kind(CONSUMERS, smallest=1, largest=10, weight=3),
}
"""``size`` of a crash: after how many round trips; of a skew: seconds; of the others: events. A database that is
set back is what it was so many seconds before, and is repaired a little later."""


def plan(chance: Random) -> list[Fault]:
    """The faults of one seed, in order of time."""
    kinds = list(KINDS)
    weights = [KINDS[kind].weight for kind in kinds]
    return sorted(
        (_draw(kind, chance) for kind in chance.choices(kinds, weights, k=chance.randint(0, 14))),
        key=lambda fault: fault.at,
    )


def _draw(kind: str, chance: Random) -> Fault:
    of = KINDS[kind]
    seconds = chance.uniform(0.05, of.longest) if of.longest else 0.0
    size = chance.randint(of.smallest, of.largest) if of.largest else 0
    return Fault(chance.uniform(0.3, FAULTY_UNTIL - 2), kind, chance.choice(of.targets), seconds, size)


class Weather:
    """The faults that last: which are on, by kind and target."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = defaultdict(float)

    def begin(self, fault: Fault) -> None:
        """Lets a fault last from now on."""
        key = (fault.kind, fault.target)
        self._until[key] = max(self._until[key], fault.at + fault.seconds)

    def clear(self) -> None:
        """Ends them all."""
        self._until.clear()

    def bad(self, kind: str, target: str, now: float) -> bool:
        """Whether such a fault is on."""
        return bool(self._until) and self._until.get((kind, target), 0.0) > now
