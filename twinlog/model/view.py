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
    key: Callable[[Recorded, Any], str | Sequence[str] | None]
    """The key of the row that an event changes, the keys of several rows, or None if it changes none."""
    evolve: Callable[[Row | None, Recorded, Any], Row | None]
    """The row after an event, from the row before it, which is None where there is none; None deletes the row."""
    created_by: type[Message] | None = None
    """The type of the first event of every row, if there is one such type; it spares looking for the row."""
    append_only: bool = False
    """Whether every event makes a new row, so that no row is ever read."""
    shared: bool = False
    """Whether projections of several logs change its rows. Each change is then made to the row as it is stored, one
    projection at a time."""
    events: Sequence[type[Message]] = ()
    """The types of the events that it is about; empty: any. Where all views of a projection say theirs, it is sent no
    other, and a type that this process has never heard of is none of its business."""
    each: Callable[[str, Row | None, Recorded, Any], Row | None] | None = None
    """Goes before ``evolve``, and is given the key, too: for events that change several rows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "events", tuple(self.events))  # it is a key of dictionaries

    @property
    def shares(self) -> bool:
        """Whether several projections may keep it."""
        return self.shared or self.append_only

    def keys(self, event: Recorded, message: Message) -> Sequence[str]:
        """The keys of the rows that an event changes."""
        if self.events and type(message) not in self.events:
            return ()
        found = self.key(event, message)
        if found is None:
            return ()
        return (found,) if isinstance(found, str) else found

    def after(self, key: str, row: Row | None, event: Recorded, message: Message) -> Row | None:
        """The row with that key after an event; None: there is none."""
        return self.each(key, row, event, message) if self.each else self.evolve(row, event, message)


AnyView = View[Any]
Changes = Mapping[AnyView, Mapping[str, Any]]
"""Changed rows, by view and key; None: the row is deleted."""
Keyed = tuple[Sequence[str], Recorded, Message]
"""The keys of the rows of a view that an event changes, the event, and its message."""


def fold(views: Sequence[AnyView], decoded: Sequence[tuple[Recorded, Message]], rows: Changes) -> Changes:
    """The rows after the events, from the rows before them; only those that changed."""
    return {view: fold_keyed(view, keyed(view, decoded), rows.get(view, {})) for view in views}


def keyed(view: AnyView, decoded: Sequence[tuple[Recorded, Message]]) -> Sequence[Keyed]:
    """The events that change rows of a view, each with the keys of those rows."""
    found: list[Keyed] = []
    for event, message in decoded:
        # As `keys` does, without its call: every event of every view comes by here.
        if view.events and type(message) not in view.events:
            continue
        keys = view.key(event, message)
        if keys is not None:
            found.append(((keys,) if isinstance(keys, str) else keys, event, message))
    return found


def fold_keyed(view: AnyView, events: Sequence[Keyed], rows: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rows of one view after the events; only those that changed."""
    changed: dict[str, Any] = {}
    each, evolve = view.each, view.evolve
    for keys, event, message in events:
        for key in keys:
            row = changed[key] if key in changed else rows.get(key)
            changed[key] = each(key, row, event, message) if each else evolve(row, event, message)
    return changed
