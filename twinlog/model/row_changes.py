"""Which rows of a view have changed since a moment, by the notes that its projections keep beside it.

A note is written in the transaction of the rows: the keys that one batch changed, and what the fields that filters look
at were before. The notes of one consumer are a chain, each from the position where the one before ended; where the
chain is whole, so is the answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from twinlog.model.view import AnyView, Changes

NO_ROWS: Changes = {}
"""Where nothing is known of rows before."""
NotedViews = Mapping[AnyView, Sequence[str]]
"""The views whose changes are noted, each with the fields of its rows that filters may look at."""


class Mark(NamedTuple):
    """A moment of one consumer: its checkpoint, and how many replays of dead letters changed rows there."""

    position: int
    part: int = 0


Marks = Mapping[str, Mark]
"""A moment of a view, by consumer."""


class Note(NamedTuple):
    """What one commit changed of one view."""

    consumer: str
    at: Mark
    after: int
    """The consumer's position before it; that of ``at`` where it was a replay."""
    order: int
    """Orders the notes of several consumers about one row."""
    keys: Sequence[str]
    fields: Sequence[str]
    """Of the rows, which ``before`` tells."""
    before: Sequence[str | None]
    """By key, the values of those fields before, as a JSON array; None: there was no row."""


class Noted(NamedTuple):
    """The notes of a view after some marks, and the marks that it is at."""

    now: Marks
    notes: Sequence[Note]
    """Of each consumer the newest first, as many as could be had."""


class Before(NamedTuple):
    """What a row was before the first of its changes."""

    fields: Sequence[str]
    values: str | None

    def told(self) -> Mapping[str, Any] | None:
        """The values by field; None: there was no row."""
        return None if self.values is None else dict(zip(self.fields, json.loads(self.values), strict=True))


Changed = Mapping[str, Before]
"""The rows that have changed, by key."""


class Crossing(NamedTuple):
    """Where watches go on that were told from a build of a view which is not kept any more."""

    build: int
    """The number of that build in what watches were told; 0: the home."""
    marks: Marks
    """By log, where it stood."""
    entered: int
    """The number of the build that was read at that moment."""
    reached: Marks
    """By log, where that one stood; nowhere behind."""
    changed: Changed
    """The rows that differed then, as the build that was left had them."""


def since(noted: Noted, marks: Marks) -> Changed | None:
    """The rows that have changed since these marks; None where that is not known.

    It is not where notes are missing: they are kept for a while only, a release without notes may have projected, and
    a checkpoint may have been set back.
    """
    newer: list[Note] = []
    for consumer, now in noted.now.items():
        wanted, position = marks.get(consumer), now.position
        if wanted is None or wanted > now:
            return None
        for note in noted.notes:
            if note.consumer != consumer or not wanted < note.at <= now or note.at.position > position:
                continue  # of another, known, or from before the checkpoint was set back
            if note.at.position < position:
                return None
            position = note.after
            newer.append(note)
        if position != wanted.position:
            return None
    changed: dict[str, Before] = {}
    for note in sorted(newer, key=lambda note: note.order, reverse=True):
        changed |= {
            key: Before(note.fields, before) for key, before in zip(note.keys, note.before, strict=True)
        }
    return changed


Sorted = dict[tuple[Any, ...], tuple[dict[str, Any], list[str]]]
"""By values of a filter, the changed rows that have them, and the keys of those that had them."""


def sorted_by(
    fields: tuple[str, ...],
    watched: Collection[tuple[Any, ...]],
    changed: Changed | None,
    rows: Mapping[str, Any],
) -> Sorted | None:
    """What has changed for those who watch by these fields; None where that is not known."""
    found: Sorted = {}
    if changed is None:
        return None
    for key, before in changed.items():
        if not set(fields) <= set(before.fields):
            return None
        row = rows.get(key)
        now = None if row is None else tuple(plain(getattr(row, field)) for field in fields)
        was = _values_of(fields, before)
        if now is not None and now in watched:
            found.setdefault(now, ({}, []))[0][key] = row
        if was is not None and was != now and was in watched:
            found.setdefault(was, ({}, []))[1].append(key)
    return found


def _values_of(fields: tuple[str, ...], before: Before) -> tuple[Any, ...] | None:
    told = before.told()
    return None if told is None else tuple(told[field] for field in fields)


class RowsNoted(NamedTuple):
    """What a note says of rows."""

    keys: Sequence[str]
    before: Sequence[str | None]


def to_note(views: NotedViews, changes: Changes, before: Changes) -> Mapping[AnyView, RowsNoted]:
    """What to note of each view that a batch may have changed, from its rows after and before it."""
    return {
        view: _rows_noted(views[view], rows, before.get(view, {}))
        for view, rows in changes.items()
        if view in views
    }


def _rows_noted(fields: Sequence[str], rows: Mapping[str, Any], before: Mapping[str, Any]) -> RowsNoted:
    keys = [key for key, row in rows.items() if row != before.get(key)]
    return RowsNoted(keys, [_told(fields, before.get(key)) for key in keys])


def _told(fields: Sequence[str], row: Any) -> str | None:
    return None if row is None else values_told([getattr(row, field) for field in fields])


def values_told(values: Sequence[Any]) -> str:
    """The values of a row's fields as notes have them."""
    return f"[{','.join([_json(value) for value in values])}]"


def _json(value: Any) -> str:
    # As json.dumps, for a third of its time: every change of a row that is watched comes by here.
    if type(value) is str:
        return encode_basestring_ascii(value)
    return int.__repr__(value) if type(value) is int else json.dumps(plain(value))


def plain(value: Any) -> Any:
    """A value of a field as notes and filters have it: a text, a number, true, false or null."""
    return value if value is None or isinstance(value, str | int) else str(value)
