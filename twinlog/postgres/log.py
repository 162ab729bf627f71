"""The log in Postgres. Needs nothing but tables: no extension, no NOTIFY, no sequence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from twinlog.log.chain import Link, Unlinked, event_digests, leaves, summed
from twinlog.log.ports import (
    Appended,
    Batch,
    Conflict,
    Handled,
    LogSession,
    ReadRequest,
    Snapshot,
    StoredReply,
    StreamSlice,
    Timer,
)
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.postgres.codecs import Connection as Connection
from twinlog.postgres.connection import Pool, connection_of, fetch, on_connection, open_database, use_of
from twinlog.postgres.named_queries import load_queries
from twinlog.postgres.past import PostgresPast

_QUERIES = load_queries("twinlog.postgres.sql")
_NO_ID, _NOTHING, _NEVER = UUID(int=0), Metadata(), datetime.min.replace(tzinfo=UTC)
"""What an event has that is only folded."""


@asynccontextmanager
async def open_log(
    server_url: str, database: str, name: str, *packages: str, size: int = 5
) -> AsyncIterator[PostgresLog]:
    """The log of that name in a database of a server; both are created if they are missing.

    ``packages``: packages whose migrations are applied besides the log's own. ``size``: the most connections.
    """
    connections = _Connections()
    async with open_database(
        server_url, database, "twinlog.postgres.sql", *packages, size=size, on_connect=connections.count
    ) as pool:
        yield PostgresLog(pool, name, connections)


class _Connections:
    """How many connections a pool has made."""

    def __init__(self) -> None:
        self.made = 0

    def count(self) -> None:
        self.made += 1


class PostgresLog(PostgresPast):
    """The log of one database."""

    def __init__(self, pool: Pool, name: str, connections: _Connections | None = None) -> None:
        self.name = name
        self.pool = pool
        self._connections = connections or _Connections()

    def dumped(self) -> Mapping[str, Any]:
        """What a dump of the process says of it: the use of its connections."""
        return {"log": self.name, **use_of(self.pool)}

    async def append(self, batch: Batch) -> Appended | Conflict:
        return await on_connection(self.pool, lambda connection: append(connection, batch))

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        return await on_connection(self.pool, lambda connection: _load(connection, self.name, wanted))

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        async with connection_of(self.pool) as connection, connection.transaction():
            await connection.fetchval(_QUERIES["lock_head"])
            yield _Session(connection, self)

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        rows = await self._fetch("read", after, limit)
        return [self.recorded(row) for row in rows]

    async def related(
        self, after: int, upto: int, correlations: Sequence[str], causes: Sequence[str]
    ) -> Sequence[Recorded]:
        """The events between two positions that have one of these correlation ids or causes, in order."""
        rows = await self._fetch("related", after, upto, [*correlations], [*causes])
        return [self.recorded(row) for row in rows]

    def recorded(self, row: Any) -> Recorded:
        """The event in a row of the table."""
        return _recorded(self.name, row[0], StreamId(row[1], row[2]), row[3:])

    async def head(self) -> int:
        return int((await self._fetch("head"))[0][0])

    async def era(self) -> int:
        return int((await self._fetch("era"))[0][0])

    async def begin_era(self) -> None:
        await self._fetch("begin_era")

    @property
    def connections(self) -> int:
        return self._connections.made

    async def reply(self, request_id: str) -> StoredReply | None:
        rows = await self._fetch("replies", [request_id])
        return StoredReply(*rows[0]) if rows else None

    async def checkpoint(self, consumer: str) -> int:
        rows = await self._fetch("checkpoint", consumer) or await self._fetch("adopt_checkpoint", consumer)
        return int(rows[0][0]) if rows else 0

    async def last_handled(self, consumer: str) -> Handled | None:
        rows = await self._fetch("last_handled", consumer)
        return Handled(*rows[0]) if rows else None

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Sequence[Timer]:
        if after is None:
            rows = await self._fetch("due", now, limit)
        else:
            rows = await self._fetch("due_after", now, limit, after.due, *after.stream)
        return [Timer(StreamId(row[0], row[1]), row[2], row[3]) for row in rows]

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        streams = [snapshot.stream for snapshot in snapshots]
        await self._fetch(
            "save",
            [stream.type for stream in streams],
            [stream.id for stream in streams],
            [snapshot.version for snapshot in snapshots],
            [snapshot.position for snapshot in snapshots],
            [snapshot.schema for snapshot in snapshots],
            [snapshot.state for snapshot in snapshots],
        )

    async def sweep_requests(self, age: timedelta, limit: int) -> int:
        return int((await self._fetch("sweep_requests", age, limit))[0][0])

    async def time(self) -> datetime:
        """What time it is by the database's clock."""
        told: datetime = (await self._fetch("clock"))[0][0]
        return told

    async def blockers(self) -> Sequence[str]:
        return [row[0] for row in await self._fetch("blockers")]

    async def page_token_secret(self) -> bytes:
        return bytes((await self._fetch("page_token_secret"))[0][0])

    async def links(self, after: int, limit: int) -> Sequence[Link]:
        return [Link(*row) for row in await self._fetch("links", after, limit)]

    async def cuts(self) -> Sequence[Link]:
        return [Link(*row) for row in await self._fetch("cuts")]

    async def newest_link(self) -> Link | None:
        rows = await self._fetch("newest_link")
        return Link(*rows[0]) if rows else None

    async def unlinked(self) -> Sequence[Unlinked]:
        return [Unlinked(*row) for row in await self._fetch("unlinked")]

    async def seal(self, limit: int) -> int:
        return await on_connection(self.pool, lambda connection: seal(connection, self, limit))

    async def append_by(self, connection: Connection, batch: Batch) -> Appended | Conflict:
        """Appends, unless a connection was made since the log was looked at: it may lead to another server."""
        if batch.tip and batch.tip.connections != self.connections:
            return Conflict(forked=True)
        return await append(connection, batch)

    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await fetch(self.pool, _QUERIES[query], *arguments)


class _Session:
    """The session of an exclusive block: a connection whose transaction holds the log's lock."""

    def __init__(self, connection: Connection, log: PostgresLog) -> None:
        self._connection = connection
        self._log = log

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        return await _load(self._connection, self._log.name, wanted)

    async def append(self, batch: Batch) -> Appended | Conflict:
        return await self._log.append_by(self._connection, batch)


async def append(connection: Connection, batch: Batch) -> Appended | Conflict:
    """Appends in the connection's transaction, or in a new one if it has none."""
    if not batch.statements:
        return await _append(connection, batch)
    async with connection.transaction():
        appended = await _append(connection, batch)
        for query, arguments in batch.statements if isinstance(appended, Appended) else ():
            await connection.execute(query, *arguments)
        return appended


async def _append(connection: Connection, batch: Batch) -> Appended | Conflict:
    streams = list(batch.expects)
    rows = (list(batch.expects.items()), batch.events, batch.replies, batch.advances, batch.timers)
    tip = batch.tip[:3] if batch.tip else (None, None, None)
    proof = summed(leaves(batch.events, batch.recorded_at)) if batch.events else (None, None)
    row = await connection.fetchrow(_QUERIES["append"], batch.recorded_at, *rows, *tip, *proof)
    assert row is not None
    if row["conflict"] is None:
        return Appended(row["first"], row["before"])
    conflict = row["conflict"]
    if conflict.get("forked"):
        return Conflict(forked=True)
    replies = await connection.fetch(_QUERIES["replies"], conflict["requests"] or [])
    return Conflict(
        [streams[number - 1] for number in conflict["streams"] or ()],
        [StoredReply(*reply) for reply in replies],
        conflict["checkpoints"] or {},
    )


async def seal(connection: Connection, log: PostgresLog, limit: int) -> int:
    """Links the first events that have no link, at most ``limit``; returns how many."""
    async with connection.transaction():
        if await connection.fetchval(_QUERIES["behind"]):
            await connection.fetchval(_QUERIES["lock_head"])
            await connection.execute(_QUERIES["note_unlinked"])
        waiting = await connection.fetchrow(_QUERIES["next_unlinked"])
        if waiting is None:
            return 0
        first = int(waiting[0])
        upto = min(int(waiting[1]), first + limit - 1)
        events = [log.recorded(row) for row in await connection.fetch(_QUERIES["read"], first - 1, limit)]
        if [event.position for event in events][: upto - first + 1] != [*range(first, upto + 1)]:
            return 0
        proof = summed(event_digests(events[: upto - first + 1]))
        await connection.execute(_QUERIES["seal_events"], first, upto, *proof)
        return upto - first + 1


def _recorded(log: str, position: int, stream: StreamId, row: Sequence[Any]) -> Recorded:
    version, event_id, type, payload, metadata, partition_key, routing_key, recorded_at, extra = row
    if extra is not None:
        metadata["extra"] = extra
    return Recorded(
        log,
        position,
        stream,
        version,
        event_id,
        type,
        payload,
        _metadata(metadata),
        partition_key,
        routing_key,
        recorded_at,
    )


def _metadata(stored: Mapping[str, Any]) -> Metadata:
    try:
        return Metadata(**stored)
    except TypeError:  # a newer version of the program knows more about an event
        return Metadata(**{name: stored[name] for name in Metadata._fields if name in stored})


async def _load(connection: Connection, log: str, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
    snapshots = await _snapshots(connection, [want for want in wanted if want.schema])
    after = [snapshots[want.stream].version if want.stream in snapshots else want.after for want in wanted]
    to_fold = all(want.to_fold for want in wanted)
    rows = await connection.fetch(
        _QUERIES["histories_to_fold" if to_fold else "histories"],
        [want.stream.type for want in wanted],
        [want.stream.id for want in wanted],
        after,
        [want.upto for want in wanted],
    )
    events: list[list[Recorded]] = [[] for _ in wanted]
    for row in rows:
        index = row[0] - 1
        stream = wanted[index].stream
        events[index].append(
            _to_fold(log, stream, row) if to_fold else _recorded(log, row[1], stream, row[2:])
        )
    return [
        StreamSlice(snapshots.get(want.stream), found) for want, found in zip(wanted, events, strict=True)
    ]


def _to_fold(log: str, stream: StreamId, row: Sequence[Any]) -> Recorded:
    _, position, version, type, payload = row
    return Recorded(log, position, stream, version, _NO_ID, type, payload, _NOTHING, "", "", _NEVER)


async def _snapshots(connection: Connection, wanted: Sequence[ReadRequest]) -> dict[StreamId, Snapshot]:
    if not wanted:
        return {}
    rows = await connection.fetch(
        _QUERIES["snapshots"],
        [want.stream.type for want in wanted],
        [want.stream.id for want in wanted],
        [want.schema for want in wanted],
    )
    after = {want.stream: want.after for want in wanted}
    found = (Snapshot(StreamId(row[0], row[1]), *row[2:]) for row in rows)
    return {snapshot.stream: snapshot for snapshot in found if snapshot.version > after[snapshot.stream]}
