"""What is made from logs: streams mirror them, message n is event n; and views are their folds, at every commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twinlog.consume.projection import Projection
from twinlog.log.ports import CheckpointAdvance
from twinlog.log.wire import to_wire
from twinlog.model.event import Recorded
from twinlog.model.view import AnyView, Changes, fold
from twinlog.testing.simulation.hosted import is_wanted
from twinlog.testing.simulation.invariants import check
from twinlog.testing.simulation.scene import Scene


class Folds:
    """Folds every view a second time, and compares."""

    def __init__(self, scene: Scene, events: Mapping[str, Sequence[Recorded]]) -> None:
        """``events``: what each log has to hold."""
        self._scene = scene
        self._events = events
        self._projections = scene.survey.projections
        self._folded: dict[str, int] = defaultdict(int)
        self._rows: dict[AnyView, dict[str, Any]] = defaultdict(dict)

    def projected(self, changes: Changes, advance: CheckpointAdvance) -> None:
        """A batch is in the views."""
        projection = self._projections[advance.consumer]
        folded = self._folded[advance.consumer]
        check(
            folded == advance.after,
            "views",
            f"{advance.consumer} moved from {advance.after}, the fold is at {folded}",
        )
        self._fold(projection, advance.upto)
        for view, rows in changes.items():
            for key in rows:
                self._row_is_fold(view, key)

    def set_back(self, service: str) -> None:
        """A service's views were set back with their database."""
        store = self._scene.views[service]
        of = [each for each in self._projections.values() if self._service(each) == service]
        for projection in of:
            for view in projection.tables:
                self._rows[view].clear()
        for projection in of:
            self._folded[projection.name] = 0
            self._fold(projection, store.positions.get(projection.name, 0))

    def unfinished(self) -> Iterator[str]:
        """Projections that are behind."""
        for each in self._projections.values():
            last = self._last_wanted(each)
            reached = self._scene.views[self._service(each)].positions.get(each.name, 0)
            if reached < last:
                yield f"{each.name} is at {reached}, the log at {last}"

    def at_rest(self) -> None:
        """Every row of every view."""
        for view, rows in self._rows.items():
            there = self._scene.rows(view)
            # Of one that only grows, a row may be of an event that was cut off and came again.
            same = view.append_only or there.keys() == rows.keys()
            check(same, "views", f"rows of {view.name}: {there.keys() ^ rows.keys()}")
            for key in rows:
                self._row_is_fold(view, key)

    def _fold(self, projection: Projection, upto: int) -> None:
        events = self._events[projection.source][self._folded[projection.name] : upto]
        wanted = [
            (event, message)
            for event in events
            if is_wanted(projection, event)
            for message in self._scene.as_stored(event)
        ]
        for view, rows in fold(projection.tables, wanted, self._rows).items():
            self._rows[view] = stored({**self._rows[view], **rows})
        self._folded[projection.name] = upto

    def _row_is_fold(self, view: AnyView, key: str) -> None:
        there, folded = self._scene.rows(view).get(key), self._rows[view].get(key)
        check(there == folded, "views", f"{view.name}/{key} is {there}, its fold {folded}")

    def _service(self, projection: Projection) -> str:
        return self._scene.survey.host_of(projection.name).name

    def _last_wanted(self, projection: Projection) -> int:
        events = reversed(self._scene.logs[projection.source].events)
        return next((event.position for event in events if is_wanted(projection, event)), 0)


def stored(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Rows by key, without those that were deleted."""
    return {key: row for key, row in rows.items() if row is not None}


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
