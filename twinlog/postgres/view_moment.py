"""What is read of views in Postgres at one moment, and the notes of which rows have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg

from twinlog.log.view_store import Build
from twinlog.model.errors import Unavailable
from twinlog.model.row_changes import Crossing, Mark, Marks, Note, Noted
from twinlog.model.view import AnyView
from twinlog.postgres.codecs import Connection
from twinlog.postgres.view_builds import crossing_of, differing, table_of

if TYPE_CHECKING:
    from twinlog.postgres.views import PostgresViews


_PAGE = 200
"""Notes that are read at once; each is of a batch of up to 500 events."""
_END = Mark(2**63 - 1)


class PostgresMoment:
    """A read-only transaction in which every statement sees the same."""

    def __init__(self, connection: Connection, queries: Mapping[str, str], views: PostgresViews) -> None:
        self._connection = connection
        self._queries = queries
        self._views = views

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        return await self._views.read_rows(self._connection, view, keys)

    async def query(self, name: str, *arguments: Any) -> Sequence[Any]:
        return await self._connection.fetch(self._views.text_of(name), *arguments)

    def reads(self, view: AnyView) -> Build | None:
        return self._views.live.current.get(view.name)

    async def build(self, view: AnyView, number: int) -> Build | None:
        row = await self._connection.fetchrow(self._queries["kept_build"], view.name, number)
        return Build(*row) if row else None

    async def differing(
        self, view: AnyView, other: Build, fields: Sequence[str], most: int
    ) -> Mapping[str, Sequence[Any] | None] | None:
        tables = (
            await self._table(other, other.table),
            await self._table(self.reads(view), self._views.table_read(view)),
        )
        try:
            found = await differing(self._connection, self._queries, tables, fields, most)
            as_it_was = await self._connection.fetchval(self._queries["same_table"], tables[0])
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            as_it_was = False
        if not as_it_was:  # A table that is emptied or dropped is so for older moments, too.
            raise Unavailable(f"build {other.number} of view {view.name} was dropped meanwhile")
        return found

    async def _table(self, build: Build | None, table: str) -> str:
        """The table of a build, as SQL. Those that are read are found first, and hide their homes."""
        if build and build.place:
            return table_of(build, table)
        return str(await self._connection.fetchval(self._queries["home_table"], table))

    async def crossing(self, view: AnyView, number: int) -> Crossing | None:
        row = await self._connection.fetchrow(self._queries["crossing"], view.name, number)
        return crossing_of(row) if row else None

    async def noted(
        self, view: AnyView, consumers: Sequence[str], since: Marks, most: int, upto: Marks | None = None
    ) -> Noted:
        now = await self._marks(view, consumers) if upto is None else upto
        notes: list[Note] = []
        for consumer, mark in since.items():
            if now[consumer] > mark:
                notes += await self._notes(view, consumer, mark, most)
        return Noted(now, notes)

    async def _marks(self, view: AnyView, consumers: Sequence[str]) -> Marks:
        found = await self._connection.fetch(self._queries["view_marks"], view.name, consumers)
        return dict.fromkeys(consumers, Mark(0)) | {row[0]: Mark(row[1], row[2]) for row in found}

    async def _notes(self, view: AnyView, consumer: str, since: Mark, most: int) -> Sequence[Note]:
        notes: list[Note] = []
        before, keys = _END, 0
        while True:
            given = (view.name, consumer, *since, *before, _PAGE)
            page = await self._connection.fetch(self._queries["view_notes"], *given)
            notes += [Note(consumer, Mark(row[0], row[1]), *row[2:]) for row in page]
            keys += sum(len(row["keys"]) for row in page)
            if len(page) < _PAGE or keys > most:
                return notes
            before = notes[-1].at
