"""Views as pure folds of keyed rows: which row an event changes, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from twinlog.model.event import Recorded

Row = TypeVar("Row")


@dataclass(frozen=True)
class View(Generic[Row]):
    """A table of rows, each the fold of the events about it."""

    name: str
    """The name of the table."""
    key: Callable[[Recorded, Any], str | None]
    """The key of the row that an event changes, or None if it changes none."""
    evolve: Callable[[Row | None, Recorded, Any], Row]
    """The row after an event, from the row before it, which is None before the first event."""
    created_by: type[Message] | None = None
    """The type of the first event of every row, if there is one such type; it spares looking for the row."""
    append_only: bool = False
    """Whether every event makes a new row, so that no row is ever read."""


AnyView = View[Any]
Changes = Mapping[AnyView, Mapping[str, Any]]
"""Changed rows, by view and key."""


def fold(views: Sequence[AnyView], decoded: Sequence[tuple[Recorded, Message]], rows: Changes) -> Changes:
    """The rows after the events, from the rows before them; only those that changed."""
    changes: dict[AnyView, dict[str, Any]] = {view: {} for view in views}
    for event, message in decoded:
        for view in views:
            key = view.key(event, message)
            if key is not None:
                changed = changes[view]
                row = changed[key] if key in changed else rows.get(view, {}).get(key)
                changed[key] = view.evolve(row, event, message)
    return changes
