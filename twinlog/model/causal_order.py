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

    @property
    def address(self) -> str:
        """Of the event, as log/position."""
        return f"{self.log}/{self.position}"


def causes_first(events: Iterable[E], place: Callable[[E], Place]) -> list[E]:
    """By time, but never an event before its cause or before an earlier one of its log."""
    found = {(at := place(event)).address: (at, event) for event in events}
    order: TopologicalSorter[str] = TopologicalSorter()
    last: dict[str, str] = {}
    for address, (at, _) in sorted(found.items(), key=lambda each: each[1][0].position):
        # A cause of the same log is among those before it.
        elsewhere = at.cause in found and found[at.cause][0].log != at.log
        order.add(address, *filter(None, (last.get(at.log), at.cause if elsewhere else "")))
        last[at.log] = address
    with suppress(CycleError):  # the causes make no sense; what they leave over is told by time
        order.prepare()
    ready = [found[address][0] for address in order.get_ready()]
    heapify(ready)
    told: dict[str, None] = {}
    while ready:
        address = heappop(ready).address
        told[address] = None
        order.done(address)
        for freed in order.get_ready():
            heappush(ready, found[freed][0])
    told |= dict.fromkeys(at.address for at in sorted(at for at, _ in found.values()))
    return [found[address][1] for address in told]
