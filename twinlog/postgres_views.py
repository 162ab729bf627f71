"""Views in Postgres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from operator import attrgetter
from typing import Any

from twinlog import sql
from twinlog.errors import CheckpointMoved
from twinlog.log import Batch, Conflict, Move
from twinlog.postgres import Connection, PostgresLog, acquire, append, fetch, outages
from twinlog.projection import AnyView, Changes
from twinlog.tasks import to_its_end


class _Undone(Exception):
    """Rolls a transaction back."""


class PostgresViews:
    """Keeps views by two named queries each: ``<view>_rows`` and ``<view>_upsert``.

    The first takes the keys and gives the columns in the order of the row's fields, the key first; the second
    takes one array a field. Two more, ``checkpoint`` and ``move_checkpoint``, are the kernel's.
    """

    def __init__(self, log: PostgresLog, package: str, rows: Mapping[str, type]) -> None:
        """``log`` is in the same database; ``package`` has the queries; ``rows``: the row's class of each view."""
        self.log = log
        self.pool = log.pool
        self._queries = {**sql.queries("twinlog.sql"), **sql.queries(package)}
        self._types = rows
        # dataclasses.astuple copies every value deeply.
        self._columns = {name: attrgetter(*(field.name for field in fields(of))) for name, of in rows.items()}

    async def checkpoint(self, consumer: str) -> int:
        rows = await fetch(self.pool, self._queries["checkpoint"], consumer)
        return rows[0][0] if rows else 0

    async def checkpoints(self) -> dict[str, int]:
        """The position up to which each consumer has projected its log."""
        rows = await fetch(self.pool, self._queries["checkpoints"])
        return {row[0]: row[1] for row in rows}

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        found = await fetch(self.pool, self._queries[f"{view.name}_rows"], keys)
        row_type = self._types[view.name]
        return {row[0]: row_type(*row) for row in found}

    async def commit(self, changes: Changes, move: Move, batch: Batch | None = None) -> Conflict | None:
        return await to_its_end(self._commit(changes, move, batch))

    async def _commit(self, changes: Changes, move: Move, batch: Batch | None) -> Conflict | None:
        conflict: Conflict | None = None
        with outages(), suppress(_Undone):
            async with acquire(self.pool) as connection, connection.transaction():
                # First of all, so that a second replica waits here instead of writing.
                moved = await connection.fetchval(self._queries["move_checkpoint"], *move)
                if moved is None:
                    actual = await connection.fetchval(self._queries["checkpoint"], move.consumer)
                    raise CheckpointMoved(consumer=move.consumer, actual=actual or 0, expected=move.after)
                for view, rows in changes.items():
                    if rows:
                        await self._upsert(connection, view, list(rows.values()))
                # Last, because it shuts out every other append until the commit.
                if batch and isinstance(refused := await append(connection, batch), Conflict):
                    conflict = refused
                    raise _Undone
        return conflict

    async def _upsert(self, connection: Connection, view: AnyView, rows: Sequence[Any]) -> None:
        columns = [list(column) for column in zip(*map(self._columns[view.name], rows), strict=True)]
        await connection.execute(self._queries[f"{view.name}_upsert"], *columns)
