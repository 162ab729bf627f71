"""The log in Postgres. Needs nothing but tables: no extension, no NOTIFY, no sequence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from twinlog.log.chain import Link, Unlinked, event_digests, leaves, summed
from twinlog.log.correlated import is_related
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
from twinlog.log.relinking import ChainEnd
from twinlog.log.repair import GIVEN_UP, GivenUp, given_up
from twinlog.log.scan import Filter, versions
from twinlog.log.texts import refuse_batch
from twinlog.log.twin import HeadAstray
from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded, StreamId, known_stream
from twinlog.postgres.added import refused
from twinlog.postgres.archive import Archive, Fetch
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import (
    Connections,
    Pool,
    connection_of,
    on_connection,
    open_database,
    use_of,
)
from twinlog.postgres.database import Admit, everything
from twinlog.postgres.loading import REFUSED, load, recorded, slices
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.past import PostgresPast

_BEYOND_THE_HEAD = ("events_pkey", "chain_pkey")
"""Violated where there are events, or links, beyond the head: it was set back."""
_PAGE = 2_000


@asynccontextmanager
async def open_log(
    server_url: str, database: str, name: str, *packages: str, size: int = 5, admit: Admit = everything
) -> AsyncIterator[PostgresLog]:
    """The log of that name in a database of a server; both are created if they are missing.

    ``packages``: packages whose migrations are applied besides the log's own. ``size``: the most connections.
    ``admit``: see :func:`~twinlog.postgres.database.connect_to_database`.
    """
    connections = Connections()
    async with open_database(
        server_url,
        database,
        "twinlog.postgres.sql",
        *packages,
        size=size,
        on_connect=connections.count,
        admit=admit,
    ) as pool:
        log = PostgresLog(pool, name, connections)
        log.packages = packages
        yield log


async def head_astray(fetch: Fetch, log: str) -> HeadAstray | None:
    """That the head of a log is not at its last event; None: it is."""
    for database, position, ends, noted, links in await fetch(QUERIES["head_astray"]):
        if position == ends:
            why = f"it says that the chain has {noted} links, and it has {links}"
        else:
            has = f"it says {position}" if position is not None else "it is empty"
            why = f"{has}, and the last event is {ends}"
        return HeadAstray(log=log, why=why, database=database)
    return None


class PostgresLog(PostgresPast):
    """The log of one database."""

    def __init__(self, pool: Pool, name: str, connections: Connections | None = None) -> None:
        self.name = name
        self.pool = pool
        self._connections = connections or Connections()
        self.archive = Archive(name)
        self.packages: Sequence[str] = ()
        """Whose migrations its database has, besides its own."""
        self.installation = ""
        """Whose it is, once that is known."""

    def dumped(self) -> Mapping[str, Any]:
        """What a dump of the process says of it: the use of its connections."""
        return {"log": self.name, **use_of(self.pool)}

    async def append(self, batch: Batch) -> Appended | Conflict:
        return await on_connection(self.pool, lambda connection: self.append_by(connection, batch))

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        rows = await on_connection(self.pool, lambda connection: load(connection, wanted))
        return await slices(rows, self.name, self.archive, wanted, self._query)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        async with connection_of(self.pool) as connection, connection.transaction():
            await connection.fetchval(QUERIES["lock_head"])
            yield _Session(connection, self)

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        return await self.read_by(self._query, after, limit)

    async def read_by(self, fetch: Fetch, after: int, limit: int) -> Sequence[Recorded]:
        """The same in the caller's transaction."""

        async def table(after: int, limit: int) -> Sequence[Recorded]:
            return [self.recorded(row) for row in await fetch(QUERIES["read"], after, limit)]

        return await self.archive.filled(fetch, table, after, limit, await table(after, limit))

    async def whole_pages(self, after: int, upto: int) -> AsyncIterator[Sequence[Recorded]]:
        """The events after one position and up to another, page by page.

        Raises Unavailable where one of them is gone: lost, or while the log is being set back.
        """
        while after < upto:
            events = await self.read(after, min(_PAGE, upto - after))
            for event in events:
                if event.position != after + 1:
                    break
                after = event.position
            if not events or events[-1].position != after:
                raise Unavailable(f"log {self.name} has no event {after + 1}; `twinlog audit` says more")
            yield events

    async def copies(self, after: int, upto: int) -> Mapping[str, Sequence[Recorded]]:
        """What each place has of the events between two positions, where there is an archive of them."""
        if after >= await self.archived_upto():
            return {}
        rows = await self._ask("read", after, upto - after)
        return {
            "table events": [self.recorded(row) for row in rows if row[0] <= upto],
            "the archive": await self.archive.read(self._query, after, upto - after),
        }

    async def given_up(self) -> Sequence[tuple[GivenUp, datetime]]:
        """What repairs have noted as gone, and when; once for each repair, which may have made many notes of it."""
        (notes,) = await self.load([ReadRequest(StreamId(GIVEN_UP, self.name))])
        return [*dict.fromkeys((given_up(note), note.recorded_at) for note in notes.events)]

    async def related(
        self, after: int, upto: int, correlations: Sequence[str], causes: Sequence[str]
    ) -> Sequence[Recorded]:
        rows = await self._ask("related", after, upto, [*correlations], [*causes])
        archived = await self.archived_upto()
        old = [
            event
            async for events in self.archive.pages(self._query, after, min(upto, archived))
            for event in events
            if is_related(event, correlations, causes)
        ]
        return [*old, *(self.recorded(row) for row in rows if row[0] > archived)]

    async def found(self, wanted: Filter, after: int, upto: int, most: int) -> Sequence[Recorded]:
        fields = wanted.stream, wanted.routing_key, wanted.correlation_id, wanted.since, wanted.until
        rows = await self._ask("found", after, upto, [*wanted.types], *fields, most)
        archived = await self.archived_upto()
        events = [self.recorded(row) for row in reversed(rows) if row[0] > archived]
        if len(events) < most and after < archived:
            pages = self.archive.pages(self._query, after, min(upto, archived))
            old = [event async for page in pages for event in page if wanted.fits(event)]
            events[:0] = old[len(events) - most :]
        return events

    async def found_in(
        self, stream: StreamId, wanted: Filter, after: int, upto: int, most: int
    ) -> Sequence[Recorded]:
        fields = wanted.routing_key, wanted.correlation_id, wanted.since, wanted.until
        rows = await self._ask("found_in", *stream, after, upto, [*wanted.types], *fields, most)
        events = [self.recorded(row) for row in reversed(rows)]
        if len(events) < most and (await self._ask("is_archived", *stream))[0][0]:
            pages = versions(self, stream, upto, after=after)
            events = [event async for page in pages for event in page if wanted.fits(event)][-most:]
        return events

    def recorded(self, row: Any) -> Recorded:
        """The event in a row of the table."""
        return recorded(self.name, row[0], known_stream((row[1], row[2])), row[3:])

    async def head(self) -> int:
        return int((await self._of_head("head"))[0])

    async def era(self) -> int:
        return int((await self._of_head("era"))[0])

    async def _of_head(self, query: str) -> asyncpg.Record:
        for row in await self._ask(query):
            return row
        raise await self.head_astray() or Unavailable(f"log {self.name} has no head yet")

    async def head_astray(self) -> HeadAstray | None:
        """That the head of the log is not at its last event; None: it is."""
        return await head_astray(self._query, self.name)

    async def last(self) -> int:
        """The position of the last event that is there, whatever the head says."""
        return int((await self._ask("last"))[0][0])

    async def first_gap(self) -> tuple[int, int] | None:
        """The first positions without an event, from and to, though later ones have one. Archived ones do not count."""
        for first, last in await self._ask("first_gap"):
            return first, last
        return None

    async def known_end(self) -> int:
        """The last position that was given to an event, as far as the database knows."""
        return int((await self._ask("known_end"))[0][0])

    async def begin_era(self) -> None:
        await self._ask("begin_era")

    @property
    def connections(self) -> int:
        return self._connections.made

    async def reply(self, request_id: str) -> StoredReply | None:
        rows = await self._ask("replies", [request_id])
        return StoredReply(*rows[0]) if rows else None

    async def checkpoint(self, consumer: str) -> int:
        rows = await self._ask("checkpoint", consumer) or await self._ask("adopt_checkpoint", consumer)
        return int(rows[0][0]) if rows else 0

    async def last_handled(self, consumer: str) -> Handled | None:
        rows = await self._ask("last_handled", consumer)
        return Handled(*rows[0]) if rows else None

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Sequence[Timer]:
        if after is None:
            rows = await self._ask("due", now, limit)
        else:
            rows = await self._ask("due_after", now, limit, after.due, *after.stream)
        return [Timer(known_stream((row[0], row[1])), row[2], row[3]) for row in rows]

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        if snapshots:
            rows = [(*stream, *rest) for stream, *rest in snapshots]
            await self._ask("save", *zip(*rows, strict=True))

    async def sweep_requests(self, age: timedelta, limit: int) -> int:
        return int((await self._ask("sweep_requests", age, limit))[0][0])

    async def time(self) -> datetime:
        """What time it is by the database's clock."""
        told: datetime = (await self._ask("clock"))[0][0]
        return told

    async def blockers(self) -> Sequence[str]:
        return [_in_words(*row) for row in await self._ask("blockers")]

    async def holders(self) -> Mapping[str, str]:
        """Who holds what an append takes, by transaction, in words for an operator."""
        return {row[0]: _in_words(*row[1:]) for row in await self._ask("holders")}

    async def page_token_secret(self) -> bytes:
        rows = await self._ask("page_token_secret")
        if not (rows and rows[0][0]):
            await self._ask("make_page_token_secret")
            rows = await self._ask("page_token_secret")
        return bytes(rows[0][0])

    async def links(self, after: int, limit: int) -> Sequence[Link]:
        return [Link(*row) for row in await self._ask("links", after, limit)]

    async def cuts(self) -> Sequence[Link]:
        return [Link(*row) for row in await self._ask("cuts")]

    async def newest_link(self) -> Link | None:
        rows = await self._ask("newest_link")
        return Link(*rows[0]) if rows else None

    async def chain_end(self) -> ChainEnd:
        """What the head of the log notes of its chain."""
        return ChainEnd(*await self._of_head("chain_end"))

    async def notes_newest(self) -> bool:
        """Whether the next link will follow the newest one."""
        return all(row[0] for row in await self._ask("notes_newest"))

    async def unlinked(self) -> Sequence[Unlinked]:
        return [Unlinked(*row) for row in await self._ask("unlinked")]

    async def seal(self, limit: int) -> int:
        return await on_connection(self.pool, lambda connection: seal(connection, self, limit))

    async def append_by(self, connection: Connection, batch: Batch) -> Appended | Conflict:
        """Appends, unless a connection was made since the log was looked at: it may lead to another server."""
        if batch.tip and batch.tip.connections != self.connections:
            return Conflict(forked=True)
        return await append(connection, batch)


class _Session:
    """The session of an exclusive block: a connection whose transaction holds the log's lock."""

    def __init__(self, connection: Connection, log: PostgresLog) -> None:
        self._connection = connection
        self._log = log

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        rows = await load(self._connection, wanted)
        return await slices(rows, self._log.name, self._log.archive, wanted, self._connection.fetch)

    async def append(self, batch: Batch) -> Appended | Conflict:
        return await self._log.append_by(self._connection, batch)


def _in_words(
    pid: int | None, name: str | None, state: str | None, seconds: int | None, gid: str | None
) -> str:
    """Who holds something up, for an operator. ``gid``: of a prepared transaction, as SQL has it."""
    if gid:
        return f"prepared transaction {gid} (for {seconds} s; ROLLBACK PREPARED {gid} ends it)"
    if pid is None:
        return "a replica that does not answer (synchronous_standby_names)"
    known = ", ".join(filter(None, (name, state, "" if seconds is None else f"for {seconds} s")))
    return f"pid {pid} ({known})" if known else f"pid {pid}"


async def append(connection: Connection, batch: Batch) -> Appended | Conflict:
    """Appends in the connection's transaction, or in a new one if it has none. Raises Unstorable and RowsRefused."""
    try:
        return await (_append_all if batch.statements else _append)(connection, batch)
    except REFUSED as error:
        if isinstance(error, asyncpg.UniqueViolationError) and error.constraint_name in _BEYOND_THE_HEAD:
            return Conflict(forked=True)
        refuse_batch(batch)
        raise


async def _append_all(connection: Connection, batch: Batch) -> Appended | Conflict:
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
    try:
        row = await connection.fetchrow(QUERIES["append"], batch.recorded_at, *rows, *tip, *proof)
    except asyncpg.PostgresError as error:
        if error.constraint_name not in _BEYOND_THE_HEAD and (added := refused(error)):
            refuse_batch(batch)
            raise added from error
        raise
    assert row is not None
    if row["conflict"] is None:
        return Appended(row["first"], row["before"])
    conflict = row["conflict"]
    if conflict.get("forked"):
        return Conflict(forked=True)
    replies = await connection.fetch(QUERIES["replies"], conflict["requests"] or [])
    return Conflict(
        [streams[number - 1] for number in conflict["streams"] or ()],
        [StoredReply(*reply) for reply in replies],
        conflict["checkpoints"] or {},
    )


async def seal(connection: Connection, log: PostgresLog, limit: int) -> int:
    """Links the first events that have no link, at most ``limit``; returns how many."""
    async with connection.transaction():
        if await connection.fetchval(QUERIES["behind"]):
            await connection.fetchval(QUERIES["lock_head"])
            await connection.execute(QUERIES["note_unlinked"])
        waiting = await connection.fetchrow(QUERIES["next_unlinked"])
        if waiting is None:
            return 0
        first = int(waiting[0])
        upto = min(int(waiting[1]), first + limit - 1)
        events = await log.read_by(connection.fetch, first - 1, limit)
        if [event.position for event in events][: upto - first + 1] != [*range(first, upto + 1)]:
            return 0
        proof = summed(event_digests(events[: upto - first + 1]))
        await connection.execute(QUERIES["seal_events"], first, upto, *proof)
        return upto - first + 1
