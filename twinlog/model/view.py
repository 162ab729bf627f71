"""Views as pure folds of keyed rows: which row an event changes, and what the row is after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from twinlog.model.event import Recorded

Row = TypeVar("Row")


@dataclass(frozen=True)
class View(Generic[Row]):
    """A table of rows, each the fold of the events that concern it."""

    name: str
    """The table."""
    key: Callable[[Recorded, Any], str | None]
    """The row that an event changes; None: none."""
    evolve: Callable[[Row | None, Recorded, Any], Row]
    """The row after an event; before the first it is None."""
    created_by: type[Message] | None = None
    """The event that begins a row, where there is one such type: before it, no row is looked for."""
    append_only: bool = False
    """Every event makes a row of its own: none has to be read."""


AnyView = View[Any]
Changes = Mapping[AnyView, Mapping[str, Any]]
"""Changed rows, by view and key."""


def fold(views: Sequence[AnyView], decoded: Sequence[tuple[Recorded, Message]], rows: Changes) -> Changes:
    """The rows that the events change, from the rows that are there."""
    changes: dict[AnyView, dict[str, Any]] = {view: {} for view in views}
    for event, message in decoded:
        for view in views:
            key = view.key(event, message)
            if key is not None:
                changed = changes[view]
                row = changed[key] if key in changed else rows.get(view, {}).get(key)
                changed[key] = view.evolve(row, event, message)
    return changes
