"""Streams mirror their logs: message n is event n."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from twinlog.log.wire import to_wire
from twinlog.model.event import Recorded
from twinlog.testing.simulation.scene import Scene
from twinlog.testing.simulation.violation import check


class Mirrors:
    """Checks what is published."""

    def __init__(self, scene: Scene, events: Mapping[str, Sequence[Recorded]]) -> None:
        """``events``: what each log has to hold."""
        self._scene = scene
        self._events = events

    def published(self, log: str, events: Sequence[Recorded]) -> None:
        """Events are in a stream."""
        for event in events:
            self._mirrors(log, event.position)
        self._mirrors(log, self._scene.twins[log].last)

    def unfinished(self) -> Iterator[str]:
        """Streams that are behind."""
        for name, log in self._scene.logs.items():
            head, twin = len(log.events), self._scene.twins[name]
            if twin.messages is None or twin.last != head:
                yield f"the twin of {name} is at {twin.last}, the log at {head}"

    def at_rest(self) -> None:
        """Every message of every stream."""
        for name, twin in self._scene.twins.items():
            messages = twin.messages or {}
            whole = len(messages) == len(self._scene.logs[name].events)
            check(whole, "twin", f"the twin of {name} has holes")
            for position in messages:
                self._mirrors(name, position)

    def _mirrors(self, log: str, position: int) -> None:
        events, messages = self._events[log], self._scene.twins[log].messages or {}
        check(position <= len(events), "twin", f"the twin of {log} has {position} of {len(events)} events")
        if position and position in messages:
            subject, data = messages[position]
            same = data == to_wire(events[position - 1]) and subject == events[position - 1].subject
            check(same, "twin", f"message {position} of {log} is not event {position}")
