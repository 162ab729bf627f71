"""Views in Postgres as an auditor reads them: at one instant, past the services' own stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from twinlog.model.view import AnyView
from twinlog.postgres.codecs import Connection
from twinlog.postgres.named_queries import load_queries
from twinlog.postgres.view_builds import quoted
from twinlog.postgres.views import PostgresViews

_QUERIES = load_queries("twinlog.audit.sql")


class TableRows:
    """A view in a table of its name, whose first column is the key."""

    def __init__(self, view: AnyView, query: str, row_type: Any, place: str = "") -> None:
        """``query``: the named query ``<view>_rows``. ``place``: the schema of a build; empty: the home's."""
        self._query = f"/* {place} */ {query}" if place else query
        self._row_type = row_type
        self._place = place
        self._table = f"{quoted(place)}.{quoted(view.table)}" if place else quoted(view.table)

    @classmethod
    def of(cls, view: AnyView, store: PostgresViews) -> TableRows | None:
        """The view in this store; None where the store never reads its rows."""
        reading = store.reading(view)
        return cls(view, *reading, store.place) if reading else None

    async def named(self, connection: Connection, keys: Sequence[str]) -> Mapping[str, Any]:
        async with _looking_in(connection, self._place):
            rows = await connection.fetch(self._query, keys)
        return {str(row[0]): self._row_type(*row) for row in rows}

    async def as_stored(self, connection: Connection, rows: Sequence[Any]) -> Sequence[Any]:
        try:
            async with connection.transaction():  # a row that does not fit must not end the outer one
                found = await connection.fetch(f"SELECT * FROM unnest($1::{self._table}[])", rows)
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return rows
        return [self._row_type(*row) for row in found]

    async def keys(self, connection: Connection) -> Sequence[str]:
        column = quoted(await connection.fetchval(_QUERIES["first_column"], self._table))
        return [str(row[0]) for row in await connection.fetch(f"SELECT {column} FROM {self._table}")]

    async def count(self, connection: Connection) -> int:
        return int(await connection.fetchval(f"SELECT count(*) FROM {self._table}"))


@asynccontextmanager
async def _looking_in(connection: Connection, place: str) -> AsyncIterator[None]:
    """Inside the block, and the connection's transaction, names are looked up in this schema first."""
    if not place:
        yield
        return
    before = await connection.fetchval("SHOW search_path")
    await connection.execute(f"SET LOCAL search_path TO {quoted(place)}, {before}")
    yield
    await connection.execute(f"SET LOCAL search_path TO {before}")
