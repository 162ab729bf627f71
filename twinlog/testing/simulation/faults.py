"""What goes wrong, and when: an explicit list, made from the seed, that can be cut down to what matters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from random import Random
from typing import NamedTuple
from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from twinlog.model.event import Metadata, NewEvent, Recorded
from twinlog.model.routing import NO_ROUTING_KEY
from twinlog.testing.simulation.hosted import Survey


@dataclass(frozen=True)
class Fault:
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
    """What it may happen to; none: it never happens."""
    longest: float = 0.0
    """Seconds."""
    smallest: int = 0
    largest: int = 0
    weight: int = 1
    """How often it is drawn, among the others."""


NEWER = Empty.DESCRIPTOR.full_name
"""The type of an event that a newer version writes, and that tells the others nothing once they can read it."""
UNKNOWN = "twinlog.simulated.OfANewerVersion"
"""What it looks like to those who do not know it."""
OUTSIDE = ("provider down", "lost answers")
"""Faults of what effects call. A table meets one of them in a run: an event whose call fails in two bad times, while
others are answered between them, is rightly set aside."""

MESSAGES = "messages"
"""What is said between replicas, outside of the streams."""


class Damage(IntEnum):
    """What becomes of snapshots."""

    CUT_OFF = 1
    GARBAGE = 2
    AHEAD = 3
    """Of a later version than their stream has."""
    OF_ANOTHER_SCHEMA = 4


Kinds = Mapping[str, Kind]
"""By name."""


def kinds_of(survey: Survey, *, leases_expire: bool = False) -> Kinds:
    """Everything that may go wrong with these services.

    ``size`` of a crash: after how many round trips; of a skew: seconds; of the others: events. A database that is set
    back is what it was so many seconds before, and is repaired a little later; ``size`` of its events are written by
    somebody who does not know of those that were lost. A provider that is down is not called;
    where its answers are lost, it is, and it is called again. A clock that is ahead is that of a service's database,
    as its leases see it; the replica is killed when the clock is put right.
    """
    services, busy, logs = (*survey.hosted,), (*survey.busy,), (*survey.logs,)
    views = (*(f"{service} views" for service in survey.projecting),)
    processes = tuple(replica(service, number) for service in services for number in (1, 2))
    stores = (*busy, *busy, *(f"{log} twin" for log in busy), *views)
    effects = (*survey.effects,)
    acting = (*survey.policies, *effects)
    replayed = (*(name for name in acting if survey.host_of(name).replays),)
    # Logs without aggregates hold dead letters at most: their databases are there for the views.
    return {
        "crash": Kind(processes, longest=4.0, smallest=1, largest=30, weight=5),
        "freeze": Kind(processes, longest=9.0, weight=2),
        "skew": Kind(processes, smallest=-240, largest=240, weight=2),
        "outage": Kind(stores, longest=5.0, weight=2),
        "lost replies": Kind(stores, longest=6.0, weight=3),
        "late effects": Kind(stores, longest=6.0, weight=3),
        "slowness": Kind(stores, longest=6.0, weight=3),
        "wipe": Kind(busy),
        "purge": Kind(busy),
        "roll back": Kind(busy, smallest=1, largest=8),
        "broken deliveries": Kind(busy, longest=8.0, weight=2),
        "doubled deliveries": Kind(busy, longest=8.0),
        "lost pokes": Kind(busy, longest=10.0),
        **(
            {"clock ahead": Kind(processes, longest=2.0, weight=3)}
            if leases_expire
            else {"shared leases": Kind(services, longest=10.0, weight=3)}
        ),
        "handover": Kind(services, weight=2),
        "set back": Kind(logs, longest=4.0, weight=2),
        "replay": Kind(replayed, smallest=1, largest=10, weight=3),
        "provider down": Kind(effects, longest=5.0, weight=2),
        "lost answers": Kind(effects, longest=5.0, weight=3),
    }


def with_unreadable_streams(kinds: Kinds) -> Kinds:
    """Adds streams whose last event is of a newer version: no process can read it for a while, then all can.

    ``size``: which stream of the log, from the newest, round and round. A consumer that has to see the events of all
    keys in order does not bear it.
    """
    return {
        **kinds,
        "unreadable": Kind(kinds["wipe"].targets, longest=9.0, smallest=1, largest=12, weight=24),
    }


def with_outsiders(kinds: Kinds) -> Kinds:
    """Adds what comes from outside of the services: snapshots are damaged, streams are at their limit, and somebody
    sends messages like those between replicas.

    ``size`` of the damage: in which of the ways of :class:`Damage`. Both replicas of the service are killed then.
    """
    logs = kinds["wipe"].targets
    return {
        **kinds,
        "damaged snapshots": Kind(logs, smallest=min(Damage), largest=max(Damage), weight=12),
        "full stream": Kind(logs, longest=6.0, weight=6),
        "forged messages": Kind((MESSAGES,), longest=8.0, weight=12),
    }


def replica(service: str, number: int) -> str:
    """The name of a replica of a service, from 1."""
    return f"{service}.{number}"


def draw(kinds: Kinds, chance: Random, faulty_seconds: float) -> list[Fault]:
    """The faults of one seed, in order of time."""
    names = [name for name, kind in kinds.items() if kind.targets]
    if not names:
        return []
    weights = [kinds[name].weight for name in names]
    return sorted(
        (
            _draw(name, kinds[name], chance, faulty_seconds)
            for name in chance.choices(names, weights, k=chance.randint(0, 14))
        ),
        key=lambda fault: fault.at,
    )


def _draw(name: str, of: Kind, chance: Random, faulty_seconds: float) -> Fault:
    seconds = chance.uniform(0.05, of.longest) if of.longest else 0.0
    size = chance.randint(of.smallest, of.largest) if of.largest else 0
    return Fault(chance.uniform(0.3, faulty_seconds - 2), name, chance.choice(of.targets), seconds, size)


class Weather:
    """The faults that last: which are on, by kind and target."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], float] = defaultdict(float)
        self._troubled: set[str] = set()
        """Effects whose provider has had its bad time."""

    def begin(self, fault: Fault) -> None:
        """Lets a fault last from now on."""
        if fault.kind in OUTSIDE:
            if fault.target in self._troubled:
                return
            self._troubled.add(fault.target)
        key = (fault.kind, fault.target)
        self._until[key] = max(self._until[key], fault.at + fault.seconds)

    def clear(self) -> None:
        """Ends them all."""
        self._until.clear()

    def bad(self, kind: str, target: str, now: float) -> bool:
        """Whether such a fault is on."""
        return bool(self._until) and self._until.get((kind, target), 0.0) > now


def newer_event(last: Recorded, id: UUID) -> NewEvent:
    """The event that a newer version writes behind the last of a stream."""
    return NewEvent(
        last.stream,
        last.version + 1,
        id,
        NEWER,
        b"",
        Metadata(actor="newer"),
        last.partition_key,
        NO_ROUTING_KEY,
    )
