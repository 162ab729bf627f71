"""Views in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, LogSession
from twinlog.log.view_builds import BuildGone, LiveBuilds, RebuildUnderWay, Rows, SetAsideMeanwhile
from twinlog.log.view_store import Build, ViewMoment
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import CheckpointMoved
from twinlog.model.event import StreamId
from twinlog.model.row_changes import NO_ROWS, Crossing, Mark, Marks, Note, Noted, NotedViews, to_note
from twinlog.model.view import AnyView, Changes

T = TypeVar("T")

_BEGUN = datetime(2020, 1, 1, tzinfo=UTC)
"""Virtual worlds have no other clock here."""
_MOST_NOTES = 1_000
"""Of a view."""

MemoryQueries = Mapping[str, Callable[..., Sequence[Any]]]
"""By name, what a query gives of the tables, by view and key, and of its arguments."""


class MemoryViews:
    """Views that live as long as this object."""

    def __init__(self, log: MemoryLog | None = None, queries: MemoryQueries | None = None) -> None:
        """``log``: the log beside the views; by default a new one. ``queries``: what stands for those in SQL."""
        self.log = log or MemoryLog("views")
        self._queries = queries or {}
        self.tables: dict[str, dict[str, Any]] = {}
        """By name; those of builds that are not at home have their place before it, with a slash."""
        self.positions: dict[str, int] = {}
        """The checkpoints, by consumer."""
        self._noted_views: dict[AnyView, Sequence[str]] = {}
        self.notes: dict[str, list[Note]] = defaultdict(list)
        """By view, in the order of their commits."""
        self.crossings: dict[tuple[str, int], Crossing] = {}
        """Where watches of dropped builds go on, by view and number."""
        self.live = LiveBuilds()
        self._builds: dict[tuple[str, int], Build] = {}
        self._place: str | None = None
        """Where the builds are that it keeps; None: it reads those that are live."""
        self._noting = True

    def at(self, place: str) -> Self:
        kept = copy(self)
        kept._place, kept._noting = place, not place
        return kept

    def begin_noting(self) -> None:
        self._noting = True

    def kept(self) -> Self:
        return self.at(self._place or "")

    async def builds(self) -> Sequence[Build]:
        return [self._builds[key] for key in sorted(self._builds)]

    async def settle_home(self, view: str, version: int) -> None:
        self._builds.setdefault((view, 1), Build(view, 1, version, True, True, False, _BEGUN, _BEGUN))

    async def begin_build(self, view: AnyView, home_version: int, share: int = 100) -> Build:
        await self.settle_home(view.name, home_version)
        for each in self._builds.values():
            if each.view == view.name and not (each.live or each.live_until or each.dropped):
                raise RebuildUnderWay(view=view.name, build=each.number)
        number = max(number for name, number in self._builds if name == view.name) + 1
        build = Build(view.name, number, view.version, False, False, False, _BEGUN, share=share)
        self._builds[view.name, number] = build
        return build

    async def switch(
        self, to: Build, live: Build, consumers: Mapping[str, str], letters: Mapping[str, int] | None
    ) -> Mapping[str, int]:
        await self.settle_home(live.view, live.version)
        behind = {
            new: self.positions.get(old, 0) - self.positions.get(new, 0) for old, new in consumers.items()
        }
        if behind := {name: lack for name, lack in behind.items() if lack > 0}:
            return behind
        if letters is not None and any(self._version_of_letters(c) != letters[c] for c in letters):
            raise SetAsideMeanwhile
        known, left = (self._builds.get((each.view, each.number)) for each in (to, live))
        if known is None or known.dropped or left is None or not left.live:
            raise BuildGone(view=to.view, build=to.number)
        self._builds[to.view, live.number] = left._replace(live=False, live_until=_BEGUN)
        self._builds[to.view, to.number] = known._replace(
            live=True, live_since=_BEGUN, may_lack=letters is None
        )
        return {}

    def _version_of_letters(self, consumer: str) -> int:
        stream = StreamId("dead_letters", consumer)
        return sum(event.stream == stream for event in self.log.events)

    async def kept_for(self, build: Build) -> float:
        return 0.0

    async def drop_build(
        self, build: Build, consumers: Sequence[str], table: str, crossing: Crossing | None = None
    ) -> float:
        known = self._builds.get((build.view, build.number))
        if known is None or known.live or known.dropped:
            raise BuildGone(view=build.view, build=build.number)
        self.tables.pop(_at(build.place, table), None)
        self._builds[build.view, build.number] = known._replace(dropped=True)
        if crossing:
            self.crossings[build.view, crossing.build] = crossing
        for consumer in () if build.home else consumers:
            self.positions.pop(consumer, None)
        return 0.0

    async def compare_builds(
        self, old: Build, new: Build, views: tuple[AnyView, AnyView], keys: Sequence[str] | None, limit: int
    ) -> Rows:
        one, other = (
            self.tables.get(_at(build.place, view.table), {})
            for build, view in zip((old, new), views, strict=True)
        )
        looked_at = keys if keys is not None else [*{**one, **other}]
        differing = {
            key: _why(one.get(key), other.get(key)) for key in looked_at if one.get(key) != other.get(key)
        }
        found = [*differing.values()]
        counts = found.count("missing"), found.count("added")
        return Rows(
            len(looked_at),
            dict([*differing.items()][:limit]),
            (len(found) - sum(counts), *counts),
            dict(self.positions),
        )

    async def count_rows(self, build: Build, table: str) -> int | None:
        return len(self.tables.get(_at(build.place, table), {}))

    async def checkpoint(self, consumer: str) -> int:
        return self.positions.get(consumer, 0)

    async def checkpoints(self) -> Mapping[str, int]:
        return dict(self.positions)

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        table = self.tables.get(self._table(view), {})
        return {key: table[key] for key in keys if key in table}

    async def row(self, view: AnyView, key: str) -> Any | None:
        """One row; None where there is none."""
        return self.tables.get(self._table(view), {}).get(key)

    async def query(self, name: str, *arguments: Any) -> Sequence[Any]:
        """What the function of that name gives; SQL is not read here."""
        if name not in self._queries:
            raise NotImplementedError(
                f"views in memory have no SQL, and so no query {name!r}; say what it gives, as in "
                f"Hosted(…, queries={{{name!r}: lambda tables, *arguments: […]}}), or test what needs it on Postgres"
            )
        return self._queries[name](self.tables, *arguments)

    def note(self, views: NotedViews) -> None:
        self._noted_views |= views

    def fields_noted(self, view: AnyView) -> Sequence[str] | None:
        return self._noted_views.get(view)

    async def forget_notes(self, older_than_seconds: float) -> None:
        """They live as long as this object."""

    async def at_once(self, read: Callable[[ViewMoment], Awaitable[T]]) -> T:
        return await read(self)  # nothing in here waits

    def reads(self, view: AnyView) -> Build | None:
        return self.live.current.get(view.name)

    async def build(self, view: AnyView, number: int) -> Build | None:
        return next(
            (
                build
                for (name, _), build in self._builds.items()
                if name == view.name
                and not build.dropped
                and (build.number == number or (build.home and not number))
            ),
            None,
        )

    async def differing(
        self, view: AnyView, other: Build, fields: Sequence[str], most: int
    ) -> Mapping[str, Sequence[Any] | None] | None:
        here = self.tables.get(self._table(view), {})
        there = self.tables.get(_at(other.place, other.table), {})
        keys = [key for key in {**here, **there} if not _same(here.get(key), there.get(key))]
        if len(keys) > most or not all({*fields} <= {*row._fields} for row in there.values()):
            return None
        return {
            key: None if (row := there.get(key)) is None else [getattr(row, field) for field in fields]
            for key in keys
        }

    async def crossing(self, view: AnyView, number: int) -> Crossing | None:
        return self.crossings.get((view.name, number))

    async def noted(
        self, view: AnyView, consumers: Sequence[str], since: Marks, most: int, upto: Marks | None = None
    ) -> Noted:
        notes = self.notes[view.name]
        now = upto or {
            consumer: max(
                (note.at for note in notes if note.consumer == consumer and note.at.position == position),
                default=Mark(position),
            )
            for consumer in consumers
            for position in [self.positions.get(consumer, 0)]
        }
        newer = [note for note in notes if note.consumer in since and note.at > since[note.consumer]]
        return Noted(now, newer[::-1])

    async def commit(
        self,
        changes: Changes,
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Conflict | None:
        async with self.log.exclusive() as session:
            return await self._commit(session, changes, advance, batch, before)

    async def update(
        self,
        wanted: Mapping[AnyView, Sequence[str]],
        change: Callable[[Changes], Changes],
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Changes | Conflict:
        async with self.log.exclusive() as session:
            rows = {view: await self.rows(view, keys) for view, keys in wanted.items()}
            changes = change(rows)
            return await self._commit(session, changes, advance, batch, {**before, **rows}) or changes

    async def _commit(
        self,
        session: LogSession,
        changes: Changes,
        advance: CheckpointAdvance,
        batch: Batch | None,
        before: Changes,
    ) -> Conflict | None:
        actual = self.positions.get(advance.consumer, 0)
        if actual != advance.after:
            raise CheckpointMoved(consumer=advance.consumer, actual=actual, expected=advance.after)
        if batch and isinstance(conflict := await session.append(batch), Conflict):
            return conflict
        self.positions[advance.consumer] = advance.upto
        self.log.note_handled(advance)
        self._note(changes, advance, before)
        for view, rows in changes.items():
            table = self.tables.setdefault(self._table(view), {})
            for key, row in rows.items():
                if row is None:
                    table.pop(key, None)
                else:
                    table[key] = row
        return None

    def _table(self, view: AnyView) -> str:
        if self._place is not None:
            return _at(self._place, view.table)
        if live := self.live.current.get(view.name):
            return _at(live.place, live.table)
        return view.table

    def _note(self, changes: Changes, advance: CheckpointAdvance, before: Changes) -> None:
        for view, rows in to_note(self._noted_views if self._noting else {}, changes, before).items():
            kept = [
                note
                for note in self.notes[view.name]
                if note.consumer != advance.consumer or note.at.position <= advance.after
            ]
            parts = [
                n.at.part for n in kept if n.consumer == advance.consumer and n.at.position == advance.upto
            ]
            at = Mark(advance.upto, max(parts, default=0) + 1 if advance.after == advance.upto else 0)
            order = kept[-1].order + 1 if kept else 1
            note = Note(
                advance.consumer, at, advance.after, order, rows.keys, self._noted_views[view], rows.before
            )
            self.notes[view.name] = [*kept[-_MOST_NOTES:], note]


def _at(place: str, table: str) -> str:
    return f"{place}/{table}" if place else table


def _same(one: Any, other: Any) -> bool:
    """As far as both have the same fields."""
    if one is None or other is None or type(one) is type(other):
        return bool(one == other)
    return all(getattr(one, name) == getattr(other, name) for name in one._fields if name in other._fields)


def _why(one: Any, other: Any) -> str:
    return "missing" if other is None else "added" if one is None else f"{one} → {other}"
