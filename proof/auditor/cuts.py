"""Databases at one instant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from proof.auditor.history import SnapshotKey
from twinlog import StreamId
from twinlog.testing.internals import Connection, Pool, Timer, load_queries

QUERIES = {**load_queries("twinlog.postgres.sql"), **load_queries("proof.auditor.sql")}


class Cut(NamedTuple):
    """A database at one instant: a REPEATABLE READ transaction that lasts as long as a round."""

    connection: Connection
    checkpoints: Mapping[str, int]
    head: int
    """Of its log."""

    def reached(self, consumer: str) -> int:
        """Where a consumer stands."""
        return self.checkpoints.get(consumer, 0)

    async def newest(self) -> int:
        """The position of the last event that is there."""
        return int(await self.connection.fetchval(QUERIES["newest"]))

    async def timers(self) -> list[Timer]:
        rows = await self.connection.fetch(QUERIES["timers"])
        return [Timer(StreamId(row[0], row[1]), row[2], row[3]) for row in rows]

    async def snapshots(self) -> list[SnapshotKey]:
        rows = await self.connection.fetch(QUERIES["snapshots"])
        return [SnapshotKey(StreamId(row[0], row[1]), row[2], row[3]) for row in rows]

    async def snapshot(self, stream: StreamId) -> bytes:
        return bytes(await self.connection.fetchval(QUERIES["snapshot"], *stream))

    async def letters(self, after: int, limit: int) -> Sequence[tuple[int, str, str, bytes]]:
        """What happened to dead letters after a position: position, consumer, type and payload."""
        rows = await self.connection.fetch(QUERIES["letters"], after, limit)
        return [(row[0], row[1], row[2], row[3]) for row in rows]

    async def doubled_ids(self, after: int) -> Sequence[tuple[str, Sequence[int]]]:
        """Event ids that stand twice after a position, and where."""
        rows = await self.connection.fetch(QUERIES["doubled_ids"], after)
        return [(str(row[0]), row[1]) for row in rows]

    async def requests(self) -> tuple[int, Sequence[tuple[str, int]]]:
        """How many stored outcomes there are, and those that point outside of the log."""
        count = await self.connection.fetchval(QUERIES["requests_count"])
        rows = await self.connection.fetch(QUERIES["requests_beyond"], self.head)
        return int(count), [(row[0], row[1]) for row in rows]


@asynccontextmanager
async def cut(pool: Pool) -> AsyncIterator[Cut]:
    """The database of the pool, now."""
    async with (
        pool.acquire(timeout=5) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        head = await connection.fetchval(QUERIES["head"])
        rows = await connection.fetch(QUERIES["checkpoints"])
        yield Cut(connection, {row[0]: row[1] for row in rows}, head)
