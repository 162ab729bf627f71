"""Views as pure folds of keyed rows: which row an event changes, and how."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from twinlog.model.errors import raise_defect
from twinlog.model.event import Recorded
from twinlog.model.forms import (
    ANY_EVENTS,
    EVENT,
    FLAG,
    NAME,
    RULES,
    Forms,
    WrongForm,
    function_of,
    optional,
    refuse,
    refuse_other,
    shown,
    whole,
    wrong_rules,
)

Row = TypeVar("Row")


def unchanged(row: Any, _event: Recorded, _message: Any) -> Any:
    """The row as it was."""
    return row


@dataclass(frozen=True, eq=False)
class _ByType:
    """An ``evolve`` that is a table."""

    rules: Mapping[type[Message], Callable[[Any, Recorded, Any], Any]]

    def __call__(self, row: Any, event: Recorded, message: Any) -> Any:
        return self.rules.get(type(message), unchanged)(row, event, message)


@dataclass(frozen=True)
class View(Generic[Row]):
    """A table of rows, each the fold of the events about it.

    View("rooms", key, rules={RoomAdded: added, RoomHeld: held})
    """

    name: str
    """The name of the view, and of its table."""
    key: Callable[[Recorded, Any], str | Sequence[str] | None]
    """The key of the row that an event changes, the keys of several rows, or None if it changes none."""
    evolve: Callable[[Row | None, Recorded, Any], Row | None] = unchanged
    """The row after an event, from the row before it (None: there is none); None deletes the row."""
    created_by: type[Message] | None = None
    """The type of every row's first event, if there is just one such type; it saves looking for the row."""
    append_only: bool = False
    """Whether every event makes a new row, so that no row is ever read."""
    shared: bool = False
    """Whether projections of several logs change its rows. Each change is then made to the row as it is stored, one
    projection at a time."""
    events: Sequence[type[Message]] = ()
    """The event types that it is about; it is sent no others, so a type unknown to this process does not concern it.
    ``[Message]``: every event, also of types that only a newer version knows; those wait as dead letters for that
    version. A projection is refused if one of its views says neither this nor ``rules``."""
    each: Callable[[str, Row | None, Recorded, Any], Row | None] | None = None
    """Goes before ``evolve``, and is given the key, too: for events that change several rows."""
    rules: Mapping[type[Message], Callable[[Row | None, Recorded, Any], Row | None]] | None = field(
        default=None, hash=False
    )
    """By event type, a function as ``evolve`` is: the two in one table. ``events`` then are its keys."""
    version: int = 1
    """A changed view is declared beside the old one, with the next version. From 2 on, the version is part of the names
    of its table and its queries, as in ``rooms_v2``."""
    wanted: frozenset[type[Message]] = field(default=frozenset(), init=False, repr=False, compare=False)
    """The types that it is about; empty: any."""

    def __post_init__(self) -> None:
        refuse_other(of := f"view {self.name!r}", self, _FORMS)
        if self.rules is not None:
            refuse(of, wrong_rules("rules", self.rules))
            if self.each or not (self.evolve is unchanged or isinstance(self.evolve, _ByType)):
                raise WrongForm(
                    of=f"view {self.name!r}", what="it has rules beside evolve or each; keep one of them"
                )
            object.__setattr__(self, "evolve", _ByType(self.rules))
            object.__setattr__(self, "events", self.rules)
        object.__setattr__(self, "events", tuple(self.events))  # it is a key of dictionaries
        object.__setattr__(self, "wanted", frozenset(() if Message in self.events else self.events))

    @property
    def table(self) -> str:
        """The name of its table."""
        return versioned(self.name, self.version)

    @property
    def shares(self) -> bool:
        """Whether several projections may keep it."""
        return self.shared or self.append_only

    def is_about(self, message: Message) -> bool:
        """Whether an event is of a type that it is about."""
        return not self.wanted or type(message) in self.wanted

    def keys(self, event: Recorded, message: Message) -> Sequence[str]:
        """The keys of the rows that an event changes."""
        return [key for keys, *_ in keyed(self, [(event, message)]) for key in keys]

    def after(self, key: str, row: Row | None, event: Recorded, message: Message) -> Row | None:
        """The row with that key after an event; None: there is none."""
        try:
            return self.each(key, row, event, message) if self.each else self.evolve(row, event, message)
        except BaseException as error:
            raise_defect(error)


def versioned(view: str, version: int) -> str:
    """The name of the table of a version of a view."""
    return view if version == 1 else f"{view}_v{version}"


def several_keys(view: View[Any], keys: Any) -> Sequence[str]:
    """The keys that a view gave, where it is not one. Raises TypeError where they are none."""
    if not isinstance(keys, Iterable) or isinstance(keys, bytes):
        raise TypeError(f"view {view.name!r}: key gave {shown(keys)}; give a text, several, or None")
    found = keys if isinstance(keys, list | tuple) else tuple(keys)
    for key in found:
        if not isinstance(key, str):
            raise TypeError(f"view {view.name!r}: among the keys is {shown(key)}; each has to be a text")
    return found


AnyView = View[Any]

_FORMS: Forms = {
    "name": NAME,
    "key": function_of("the record and the event"),
    "evolve": function_of("the row, the record and the event"),
    "created_by": optional(EVENT),
    "append_only": FLAG,
    "shared": FLAG,
    "events": ANY_EVENTS,
    "each": optional(function_of("the key, the row, the record and the event")),
    "rules": optional(RULES),
    "version": whole(1),
}
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
    try:
        for event, message in decoded:
            if view.wanted and type(message) not in view.wanted:
                continue
            keys = view.key(event, message)
            if keys is not None:
                found.append(((keys,) if isinstance(keys, str) else several_keys(view, keys), event, message))
    except BaseException as error:
        raise_defect(error)
    return found


def fold_keyed(view: AnyView, events: Sequence[Keyed], rows: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rows of one view after the events; only those that changed."""
    changed: dict[str, Any] = {}
    each, evolve = view.each, view.evolve
    try:
        for keys, event, message in events:
            for key in keys:
                row = changed[key] if key in changed else rows.get(key)
                changed[key] = each(key, row, event, message) if each else evolve(row, event, message)
    except BaseException as error:
        raise_defect(error)
    if not view.append_only:
        _check_rows(view, changed)
    return changed


def _check_rows(view: View[Any], changed: Mapping[str, Any]) -> None:
    """Raises TypeError for a row that would be stored in another's place, or that is no row."""
    try:  # without a call for each row
        odd = [key for key, row in changed.items() if row is not None and row[0] != key]
    except (TypeError, LookupError):  # it is no tuple
        odd = [*changed]
    for key in odd:
        _check_row(view, key, changed[key])


def _check_row(view: View[Any], key: str, row: Any) -> None:
    if isinstance(row, tuple):
        if row and row[0] != key and isinstance(row[0], str):
            raise TypeError(
                f"view {view.name!r}: the row of {key!r} has {row[0]!r} as its first field, and would take the place "
                f"of that one; let it begin with its key"
            )
    elif isinstance(row, type | Awaitable):
        raise TypeError(f"view {view.name!r}: the row of {key!r} is {shown(row)}; give a row, or None")
