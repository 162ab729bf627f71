"""Views in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, LogSession
from twinlog.log.view_store import ViewMoment
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import CheckpointMoved
from twinlog.model.row_changes import NO_ROWS, Mark, Marks, Note, Noted, NotedViews, to_note
from twinlog.model.view import AnyView, Changes

T = TypeVar("T")

_MOST_NOTES = 1_000
"""Of a view."""


class MemoryViews:
    """Views that live as long as this object."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        """``log``: the log beside the views; by default a new one."""
        self.log = log or MemoryLog("views")
        self.tables: dict[str, dict[str, Any]] = {}
        self.positions: dict[str, int] = {}
        """The checkpoints, by consumer."""
        self._noted_views: dict[AnyView, Sequence[str]] = {}
        self.notes: dict[str, list[Note]] = defaultdict(list)
        """By view, in the order of their commits."""

    async def checkpoint(self, consumer: str) -> int:
        return self.positions.get(consumer, 0)

    async def checkpoints(self) -> Mapping[str, int]:
        return dict(self.positions)

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        table = self.tables.get(view.name, {})
        return {key: table[key] for key in keys if key in table}

    async def row(self, view: AnyView, key: str) -> Any | None:
        """One row; None where there is none."""
        return self.tables.get(view.name, {}).get(key)

    async def query(self, name: str, *arguments: Any) -> Sequence[Any]:
        """Named queries are for stores with a language for them: here, look at ``tables``."""
        raise NotImplementedError(f"views in memory have no query {name!r}")

    def note(self, views: NotedViews) -> None:
        self._noted_views |= views

    async def forget_notes(self, older_than_seconds: float) -> None:
        """They live as long as this object."""

    async def at_once(self, read: Callable[[ViewMoment], Awaitable[T]]) -> T:
        return await read(self)  # nothing in here waits

    async def noted(self, view: AnyView, consumers: Sequence[str], since: Marks, most: int) -> Noted:
        notes = self.notes[view.name]
        now = {
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
            table = self.tables.setdefault(view.name, {})
            for key, row in rows.items():
                if row is None:
                    table.pop(key, None)
                else:
                    table[key] = row
        return None

    def _note(self, changes: Changes, advance: CheckpointAdvance, before: Changes) -> None:
        for view, rows in to_note(self._noted_views, changes, before).items():
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
