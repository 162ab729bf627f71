"""Stores the rows of views in Postgres, with the checkpoint and with notes of what has changed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from itertools import chain
from typing import Any, Self

import asyncpg

from twinlog.log.ports import CheckpointAdvance
from twinlog.log.view_store import holds
from twinlog.model.errors import CheckpointMoved, ConfigurationError, RowsRefused, Unavailable
from twinlog.model.row_changes import to_note
from twinlog.model.view import AnyView, Changes
from twinlog.postgres.added import refused, retyped
from twinlog.postgres.codecs import Connection
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.named_queries import named
from twinlog.postgres.view_builds import quoted

_MOVED = "TW001"
"""SQLSTATE that move_checkpoint raises if the checkpoint is elsewhere."""
_MISFIT = "42"
"""SQLSTATE class of statements that do not fit the tables."""
_NOT_SENT = "22000"
"""What asyncpg raises by itself, as for a row with more fields than its table has columns."""
_NO_TABLE = "42P01"
_NOT_THE_TABLES = ("42501", "42P05")
"""Of that class: a right that is missing, and a pooler that parts sessions."""


_NOTE_PARAMETERS = 4
_NoteOfView = tuple[str, Sequence[str], Sequence[str], Sequence[str | None]]
"""A view's name, the changed keys, the fields, and their values before."""


class OtherTables(ConfigurationError):
    """The tables of {views} do not fit this program: {why}. Run the program that they were made for."""

    reason = "OTHER_TABLES"


class OtherColumns(ConfigurationError):
    """Rows of {view} have the fields {fields}, the table the columns {columns}; give both the same, in one order."""

    reason = "OTHER_COLUMNS"


class ViewWriter:
    """Stores what has changed, on a connection of the caller's."""

    def __init__(
        self, log: PostgresLog, queries: Mapping[str, str], package: str, rows: Mapping[str, Any]
    ) -> None:
        """``package``: who has the queries of the views; ``rows``: the NamedTuple of each view."""
        self._log = log
        self._queries = queries
        self._package = package
        self._types = rows
        self._place = ""
        """Where the builds are that it writes; empty: at home."""
        self._statements: dict[tuple[tuple[str, ...], int], str] = {}
        self._seen: dict[str, Mapping[str, str]] = {}
        """By table whose row type has been compared with it, the types of its columns then."""
        self.noted: dict[AnyView, Sequence[str]] = {}
        """Views whose changes are noted."""
        self.noting = True

    def at(self, place: str) -> Self:
        """One that writes the builds of a place."""
        there = copy(self)
        there._place, there._statements, there._seen, there.noting = place, {}, {}, not place
        return there

    async def store(
        self, connection: Connection, changes: Changes, advance: CheckpointAdvance, before: Changes
    ) -> None:
        """Advances the checkpoint with the changes and their notes.

        ``before``: the rows before the changes, as far as there were any. Raises CheckpointMoved, OtherTables and
        OtherColumns.
        """
        await self._compare_columns(connection, changes)
        changed: dict[str, Sequence[Any]] = {}
        for view, rows in changes.items():
            if kept := [row for row in rows.values() if row is not None]:
                changed[f"{view.table}_upsert"] = kept
            if len(kept) < len(rows):
                changed[f"{view.table}_delete"] = [key for key, row in rows.items() if row is None]
        notes = to_note(self.noted, changes, before) if self.noted and self.noting else {}
        noted = [(view.name, rows.keys, self.noted[view], rows.before) for view, rows in notes.items()]
        try:
            if advance.after == advance.upto and noted:  # a replay
                await self._replay(connection, changed, advance, noted)
                return
            statement = self._statement(tuple(changed), len(noted))
            await connection.execute(statement, *advance, *changed.values(), *chain.from_iterable(noted))
        except asyncpg.PostgresError as error:
            if error.sqlstate == _MOVED:
                actual = int(error.detail or 0)
                raise CheckpointMoved(
                    consumer=advance.consumer, actual=actual, expected=advance.after
                ) from error
            if added := refused(error, (self._package, *self._log.packages)):
                raise added from error
            if self._place and error.sqlstate == _NO_TABLE:
                raise Unavailable(f"build {self._place} was dropped") from error
            if error.sqlstate == _NOT_SENT and (other := self._too_wide(changes)):
                await self._log.pool.expire_connections()
                raise other from error
            if (error.sqlstate or "").startswith(_MISFIT) and error.sqlstate not in _NOT_THE_TABLES:
                # No event's fault, so none is parked. A session keeps the types of tables that it has seen.
                await self._log.pool.expire_connections()
                views = " and ".join(view.name for view, rows in changes.items() if rows)
                raise OtherTables(views=views, why=error) from error
            raise

    async def _compare_columns(self, connection: Connection, views: Iterable[AnyView]) -> None:
        """Raises OtherColumns where a row has a table's columns in another order: they would change places."""
        for view in views:
            if view.table in self._seen:
                continue
            fields = self._fields(view)
            types = {row[0]: row[1] for row in await connection.fetch(self._queries["columns"], view.table)}
            if [*types] != fields and sorted(types) == sorted(fields):
                raise _other_columns(view, fields, [*types])
            self._seen[view.table] = types

    def _too_wide(self, views: Iterable[AnyView]) -> OtherColumns | None:
        """That a view's rows have more fields than its table has columns, which are looked up again."""
        for view in views:
            fields, columns = self._fields(view), [*self._seen.get(view.table, ())]
            if len(fields) > len(columns) > 0:
                del self._seen[view.table]
                return _other_columns(view, fields, columns)
        return None

    def _fields(self, view: AnyView) -> list[str]:
        return list(getattr(self._types.get(view.table), "_fields", ()))

    async def retyped(self, connection: Connection, views: Iterable[AnyView]) -> RowsRefused | None:
        """A column that has not the type of the last start, or, where it kept none, of the first write."""
        place = f"{quoted(self._place)}." if self._place else ""
        for view in views:
            for column, now, kept in await connection.fetch(self._queries["columns"], view.table):
                was = kept or self._seen.get(view.table, {}).get(column, now)
                if not holds(now, was):
                    await self._log.pool.expire_connections()  # a session keeps the types that it has seen
                    return retyped(f"{place}{view.table}", column, was, now)
        return None

    async def _replay(
        self,
        connection: Connection,
        changed: Mapping[str, Sequence[Any]],
        advance: CheckpointAdvance,
        noted: Sequence[_NoteOfView],
    ) -> None:
        async with connection.transaction():
            await connection.execute(self._statement(tuple(changed), 0), *advance, *changed.values())
            # Only now it sees what another replay has noted that it had to wait for.
            for note in noted:
                await connection.execute(self._queries["note_replay"], advance.consumer, advance.upto, *note)

    def _statement(self, names: tuple[str, ...], noted: int) -> str:
        """The advance, the changes and the notes of them as one statement: one round trip, and one transaction."""
        if (names, noted) not in self._statements:
            first = len(CheckpointAdvance._fields) + 1
            parts = [
                f"{name} AS ({named(self._queries, name).replace('$1', f'${parameter}')})"
                for parameter, name in enumerate(names, first)
            ]
            first += len(names)
            for parameter in range(first, first + noted * _NOTE_PARAMETERS, _NOTE_PARAMETERS):
                parts.append(f"noted_{parameter} AS ({_shifted(self._queries['note_advance'], parameter)})")
            if self._place and names:  # where it was dropped, the name of its table would mean the home
                table = f"{quoted(self._place)}.{quoted(names[0].rpartition('_')[0])}"
                parts.insert(0, f"there AS (SELECT FROM {table} LIMIT 0)")
            # The main query runs first, so a second replica waits for the first one here and writes nothing.
            with_parts = f"WITH {', '.join(parts)} " if parts else ""
            self._statements[names, noted] = f"{with_parts}SELECT advance_checkpoint($1, $2, $3, $4)"
        return self._statements[names, noted]


def _other_columns(view: AnyView, fields: Sequence[str], columns: Sequence[str]) -> OtherColumns:
    return OtherColumns(view=view.table, fields=", ".join(fields), columns=", ".join(columns))


def _shifted(note: str, first: int) -> str:
    """The statement of a note with the parameters of its own, from $4 on, moved to ``first``."""
    return re.sub(r"\$([4-7])", lambda found: f"${int(found[1]) - 4 + first}", note)
