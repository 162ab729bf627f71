"""The order in which events of several logs are told: each after its cause, whatever clocks say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from typing import Any, NamedTuple, TypeVar

E = TypeVar("E")


class Place(NamedTuple):
    """Where an event stands; those that nothing else orders are told by this."""

    recorded_at: Any
    """Of a kind that is the same for all events."""
    log: str
    position: int
    cause: str
    """The address of its cause, as log/position, where that is an event."""


def causes_first(events: Iterable[E], place: Callable[[E], Place]) -> list[E]:
    """By time, but never an event before its cause or before an earlier one of its log."""
    places: dict[str, Place] = {}
    found: dict[str, E] = {}
    for event in events:
        at = place(event)
        address = f"{at.log}/{at.position}"
        places[address], found[address] = at, event
    order: TopologicalSorter[str] = TopologicalSorter()
    last: dict[str, str] = {}
    for _, address in sorted([(at.position, address) for address, at in places.items()]):
        _, log, _, cause = places[address]
        before = [last[log]] if log in last else []
        if cause in places and places[cause].log != log:  # one of the same log is among those before it
            before.append(cause)
        order.add(address, *before)
        last[log] = address
    with suppress(CycleError):  # the causes make no sense; what they leave over is told by time
        order.prepare()
    ready = [(places[address], address) for address in order.get_ready()]
    heapify(ready)
    told: dict[str, None] = {}
    while ready:
        _, address = heappop(ready)
        told[address] = None
        order.done(address)
        for freed in order.get_ready():
            heappush(ready, (places[freed], freed))
    told |= dict.fromkeys(sorted(places, key=places.__getitem__))
    return [found[address] for address in told]
