"""What is read of views in Postgres at one moment, and the notes of which rows have changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twinlog.model.row_changes import Mark, Marks, Note, Noted
from twinlog.model.view import AnyView
from twinlog.postgres.codecs import Connection

ReadRows = Callable[[Connection, AnyView, Sequence[str]], Awaitable[Mapping[str, Any]]]

_PAGE = 200
"""Notes that are read at once; each is of a batch of up to 500 events."""
_END = Mark(2**63 - 1)


class PostgresMoment:
    """A read-only transaction in which every statement sees the same."""

    def __init__(self, connection: Connection, queries: Mapping[str, str], read_rows: ReadRows) -> None:
        self._connection = connection
        self._queries = queries
        self._read_rows = read_rows

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        return await self._read_rows(self._connection, view, keys)

    async def query(self, name: str, *arguments: Any) -> Sequence[Any]:
        return await self._connection.fetch(self._queries[name], *arguments)

    async def noted(self, view: AnyView, consumers: Sequence[str], since: Marks, most: int) -> Noted:
        found = await self.query("view_marks", view.name, consumers)
        now = dict.fromkeys(consumers, Mark(0)) | {row[0]: Mark(row[1], row[2]) for row in found}
        notes: list[Note] = []
        for consumer, mark in since.items():
            if now[consumer] > mark:
                notes += await self._notes(view, consumer, mark, most)
        return Noted(now, notes)

    async def _notes(self, view: AnyView, consumer: str, since: Mark, most: int) -> Sequence[Note]:
        notes: list[Note] = []
        before, keys = _END, 0
        while True:
            page = await self.query("view_notes", view.name, consumer, *since, *before, _PAGE)
            notes += [Note(consumer, Mark(row[0], row[1]), *row[2:]) for row in page]
            keys += sum(len(row["keys"]) for row in page)
            if len(page) < _PAGE or keys > most:
                return notes
            before = notes[-1].at
