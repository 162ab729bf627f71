"""Views are the folds of their logs, at every commit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twinlog.log.ports import CheckpointAdvance
from twinlog.model.event import Recorded
from twinlog.model.view import AnyView, Changes, fold
from twinlog.testing.simulation.hosted import Projected, is_wanted
from twinlog.testing.simulation.scene import Scene
from twinlog.testing.simulation.violation import check


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
        of = [each for each in self._projections.values() if each.service == service]
        for projection in of:
            for view in projection.views:
                self._rows[view].clear()
        for projection in of:
            self._folded[projection.consumer] = 0
            self._fold(projection, store.positions.get(projection.consumer, 0))

    def unfinished(self) -> Iterator[str]:
        """Projections that are behind."""
        for each in self._projections.values():
            last = self._last_wanted(each)
            reached = self._scene.views[each.service].positions.get(each.consumer, 0)
            if reached < last:
                yield f"{each.consumer} is at {reached}, the log at {last}"

    def at_rest(self) -> None:
        """Every row of every view."""
        for view, rows in self._rows.items():
            there = self._scene.rows(view)
            if (
                not view.append_only
            ):  # a row that nobody reads may be of an event that was cut off and came again
                check(
                    there.keys() == rows.keys(),
                    "views",
                    f"rows of {view.name}: {there.keys() ^ rows.keys()}",
                )
            for key in rows:
                self._row_is_fold(view, key)

    def _fold(self, projection: Projected, upto: int) -> None:
        events = self._events[projection.log][self._folded[projection.consumer] : upto]
        wanted = [
            (event, message)
            for event in events
            if is_wanted(projection, event)
            for message in self._scene.as_stored(event)
        ]
        for view, rows in fold(projection.views, wanted, self._rows).items():
            self._rows[view] = stored({**self._rows[view], **rows})
        self._folded[projection.consumer] = upto

    def _row_is_fold(self, view: AnyView, key: str) -> None:
        there, folded = self._scene.rows(view).get(key), self._rows[view].get(key)
        check(there == folded, "views", f"{view.name}/{key} is {there}, its fold {folded}")

    def _last_wanted(self, projection: Projected) -> int:
        events = reversed(self._scene.logs[projection.log].events)
        return next((event.position for event in events if is_wanted(projection, event)), 0)


def stored(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Rows by key, without those that were deleted."""
    return {key: row for key, row in rows.items() if row is not None}
