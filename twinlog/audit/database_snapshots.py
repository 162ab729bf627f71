"""Databases and the tables of their views, each read at one instant, past the services' own stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from twinlog.audit.history import SnapshotKey, StoredState
from twinlog.log.ports import Timer
from twinlog.model.event import StreamId
from twinlog.model.view import AnyView
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Pool
from twinlog.postgres.named_queries import load_queries
from twinlog.postgres.timeouts import without_timeouts
from twinlog.postgres.view_builds import quoted
from twinlog.postgres.views import PostgresViews

QUERIES = {**load_queries("twinlog.postgres.sql"), **load_queries("twinlog.audit.sql")}


class DatabaseSnapshot(NamedTuple):
    """A database at one instant: a REPEATABLE READ transaction that lasts for one round."""

    connection: Connection
    checkpoints: Mapping[str, int]
    head: int
    """The head of its log."""

    def reached(self, consumer: str) -> int:
        """The checkpoint of a consumer; 0 where it has none."""
        return self.checkpoints.get(consumer, 0)

    async def newest(self) -> int:
        """The position of the last event that exists; 0 where there is none."""
        return int(await self.connection.fetchval(QUERIES["newest"]))

    async def timers(self) -> list[Timer]:
        rows = await self.connection.fetch(QUERIES["timers"])
        return [Timer(StreamId(row[0], row[1]), row[2], row[3]) for row in rows]

    async def snapshots(self) -> list[SnapshotKey]:
        rows = await self.connection.fetch(QUERIES["snapshots"])
        return [SnapshotKey(StreamId(row[0], row[1]), row[2], row[3]) for row in rows]

    async def kept_snapshots(self, after: Mapping[StreamId, int]) -> list[SnapshotKey]:
        """Those that are kept of versions beyond some that were looked at already."""
        rows = await self.connection.fetch(QUERIES["kept_keys"])
        keys = (SnapshotKey(StreamId(row[0], row[1]), row[2], row[3], row[4]) for row in rows)
        return [key for key in keys if key.version > after.get(key.stream, 0)]

    async def stored(self, key: SnapshotKey) -> StoredState:
        """What a snapshot holds."""
        if key.event_id:
            row = await self.connection.fetchrow(QUERIES["kept_state"], *key.stream, key.version)
        else:
            row = await self.connection.fetchrow(QUERIES["snapshot"], *key.stream)
        assert row is not None
        return StoredState(*row)

    async def dead_letters(self, after: int, limit: int) -> Sequence[tuple[int, str, str, bytes]]:
        """The events about dead letters after a position: position, consumer, type and payload."""
        rows = await self.connection.fetch(QUERIES["dead_letters"], after, limit)
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def doubled_ids(self, after: int) -> Sequence[tuple[str, Sequence[int]]]:
        """Event ids that occur more than once after a position, with their positions."""
        rows = await self.connection.fetch(QUERIES["doubled_ids"], after)
        return [(str(row[0]), row[1]) for row in rows]

    async def archived_places(self) -> tuple[int, int, int]:
        """How many events are archived; of those, how many the table has and how many are named as archived only."""
        row = await self.connection.fetchrow(QUERIES["archived_places"])
        assert row is not None
        return row[0], row[1], row[2]

    async def requests(self) -> tuple[int, Sequence[tuple[str, int]]]:
        """The number of stored outcomes, and those that point outside the log, as request id and position."""
        count = await self.connection.fetchval(QUERIES["requests_count"])
        rows = await self.connection.fetch(QUERIES["requests_beyond"], self.head)
        return int(count), [(row[0], row[1]) for row in rows]


@asynccontextmanager
async def database_snapshot(pool: Pool) -> AsyncIterator[DatabaseSnapshot]:
    """The pool's database as it is now."""
    async with (
        pool.acquire(timeout=5) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await without_timeouts(connection)
        head = await connection.fetchval(QUERIES["head"])
        rows = await connection.fetch(QUERIES["checkpoints"])
        yield DatabaseSnapshot(connection, {row[0]: row[1] for row in rows}, head)


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
        column = quoted(await connection.fetchval(QUERIES["first_column"], self._table))
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
