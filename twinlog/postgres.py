"""The log in Postgres. Needs nothing but tables: no extension, no NOTIFY, no sequence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import asyncpg
import structlog

from twinlog import sql
from twinlog.errors import Unavailable
from twinlog.event import Metadata, Recorded, StreamId
from twinlog.log import (
    Appended,
    Batch,
    Conflict,
    History,
    LogSession,
    Snapshot,
    StoredReply,
    Timer,
    Wanted,
)
from twinlog.migrations import ensure_database, migrate
from twinlog.postgres_codecs import Connection as Connection
from twinlog.postgres_codecs import set_codecs
from twinlog.tasks import to_its_end

Pool: TypeAlias = "asyncpg.Pool[Any]"
T = TypeVar("T")

_ACQUIRE_SECONDS = 5.0
_STATEMENT_SECONDS = 30.0
_STOP_SECONDS = 0.5
_RETRY_FIRST, _RETRY_MOST = 0.1, 2.0
_NO_SERVICE = ("08", "53", "57", "58")
"""SQLSTATE classes of a server that is away, full, stopping or broken: the outcome is unknown or nothing."""

_QUERIES = sql.queries("twinlog.sql")


@contextmanager
def outages() -> Iterator[None]:
    """Turns what asyncpg raises when the server is out of service into Unavailable."""
    try:
        yield
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        _heed_cancellation(error)
        raise Unavailable(f"the database is out of reach ({type(error).__name__})") from error
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] in _NO_SERVICE:
            _heed_cancellation(error)
            raise Unavailable(f"the database is out of service ({error})") from error
        raise


def _heed_cancellation(error: Exception) -> None:
    """Raises CancelledError where it was what made asyncpg tidy up, and fail at that: it must not be forgotten."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def acquire(pool: Pool) -> asyncpg.pool.PoolAcquireContext[Any]:
    """A connection of a pool, within seconds: asyncpg itself would wait for ever. Use inside :func:`outages`."""
    return pool.acquire(timeout=_ACQUIRE_SECONDS)


async def fetch(pool: Pool, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows that a statement gives. Raises Unavailable; one that was begun is finished, whoever is cancelled."""
    return await to_its_end(_fetch(pool, query, *arguments))


async def _fetch(pool: Pool, query: str, *arguments: Any) -> list[asyncpg.Record]:
    with outages():
        async with acquire(pool) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
            return rows


async def until_available(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Tries until the server is there; says once that it waits, and once that it goes on."""
    log, delay, waiting = structlog.get_logger(), _RETRY_FIRST, False
    while True:
        try:
            with outages():
                result = await attempt()
            if waiting:
                log.info("postgres.available", what=what)
            return result
        except Unavailable as error:
            if not waiting:
                log.warning("postgres.waiting", what=what, why=str(error))
            waiting = True
            await asyncio.sleep(delay)
            delay = min(delay * 2, _RETRY_MOST)


async def _set_up(connection: Connection) -> None:
    # Plans are made while tables are small, and kept: a scan of the whole table would be right then.
    await connection.execute("SET enable_seqscan = off; SET jit = off")
    await set_codecs(connection)


async def _no_reset(_connection: Connection) -> None:
    """Nothing here leaves session state behind, so the round trip that clears it is spared."""


@asynccontextmanager
async def open_pool(url: str, *packages: str, size: int = 5) -> AsyncIterator[Pool]:
    """A pool for a database that these packages' migrations were applied to; waits for an absent server."""

    async def prepare() -> Pool:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            for package in packages:
                await migrate(connection, package)
        finally:
            await connection.close()
        return await asyncpg.create_pool(
            url,
            # No floor: asyncpg would keep knocking, and log each refusal, while the server is away.
            min_size=0,
            max_size=size,
            command_timeout=_STATEMENT_SECONDS,
            timeout=_ACQUIRE_SECONDS,
            init=_set_up,
            reset=_no_reset,
        )

    pool = await until_available("migrations", prepare)
    try:
        yield pool
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await pool.close()
        pool.terminate()


def stop_waiting(pool: Pool) -> None:
    """Cuts every connection in a moment: at a stop, nobody waits longer for a server that does not answer.

    What is cut off has an unknown outcome, and is found out or done again by whoever comes next.
    """
    asyncio.get_running_loop().call_later(_STOP_SECONDS, pool.terminate)


@asynccontextmanager
async def open_database(server_url: str, database: str, *packages: str) -> AsyncIterator[Pool]:
    """A pool for a database of a server, which is made where it is missing."""
    url = await until_available("database", lambda: ensure_database(server_url, database))
    async with open_pool(url, *packages) as pool:
        yield pool


@asynccontextmanager
async def open_log(server_url: str, database: str, name: str, *packages: str) -> AsyncIterator[PostgresLog]:
    """The log of that name, in a database of a server; both are made where they are missing.

    ``packages``: whose migrations are applied besides the log's own.
    """
    async with open_database(server_url, database, "twinlog.sql", *packages) as pool:
        yield PostgresLog(pool, name)


class PostgresLog:
    """A log in a database of its own."""

    def __init__(self, pool: Pool, name: str) -> None:
        self.name = name
        self.pool = pool

    async def append(self, batch: Batch) -> Appended | Conflict:
        # A cancelled COMMIT has an unknown outcome.
        return await to_its_end(self._append(batch))

    async def load(self, wanted: Sequence[Wanted]) -> Sequence[History]:
        return await to_its_end(self._load(wanted))

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        with outages():
            async with acquire(self.pool) as connection, connection.transaction():
                await connection.fetchval(_QUERIES["lock_head"])
                yield _Session(connection, self.name)

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        rows = await self._fetch("read", after, limit)
        return [_recorded(self.name, row[0], StreamId(row[1], row[2]), row[3:]) for row in rows]

    async def head(self) -> int:
        return int((await self._fetch("head"))[0][0])

    async def reply(self, request_id: str) -> StoredReply | None:
        rows = await self._fetch("replies", [request_id])
        return StoredReply(*rows[0]) if rows else None

    async def checkpoint(self, consumer: str) -> int:
        rows = await self._fetch("checkpoint", consumer)
        return int(rows[0][0]) if rows else 0

    async def due(self, now: datetime, limit: int) -> Sequence[Timer]:
        rows = await self._fetch("due", now, limit)
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

    async def _append(self, batch: Batch) -> Appended | Conflict:
        with outages():
            async with acquire(self.pool) as connection:
                return await append(connection, batch)

    async def _load(self, wanted: Sequence[Wanted]) -> Sequence[History]:
        with outages():
            async with acquire(self.pool) as connection:
                return await _load(connection, self.name, wanted)

    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await fetch(self.pool, _QUERIES[query], *arguments)


class _Session:
    """What an exclusive block works through: one connection, whose transaction holds the log's lock."""

    def __init__(self, connection: Connection, log: str) -> None:
        self._connection = connection
        self._log = log

    async def load(self, wanted: Sequence[Wanted]) -> Sequence[History]:
        return await _load(self._connection, self._log, wanted)

    async def append(self, batch: Batch) -> Appended | Conflict:
        return await append(self._connection, batch)


async def append(connection: Connection, batch: Batch) -> Appended | Conflict:
    """Appends in the connection's transaction, or in one of its own where it has none."""
    streams = list(batch.expects)
    rows = (list(batch.expects.items()), batch.events, batch.replies, batch.moves, batch.timers)
    row = await connection.fetchrow(_QUERIES["append"], batch.recorded_at, *rows)
    assert row is not None
    if row["conflict"] is None:
        return Appended(row["first"])
    conflict = row["conflict"]
    replies = await connection.fetch(_QUERIES["replies"], conflict["requests"] or [])
    return Conflict(
        [streams[number - 1] for number in conflict["streams"] or ()],
        [StoredReply(*reply) for reply in replies],
        conflict["checkpoints"] or {},
    )


def _recorded(log: str, position: int, stream: StreamId, row: Sequence[Any]) -> Recorded:
    version, event_id, type, payload, metadata, partition_key, tag, recorded_at = row
    return Recorded(
        log,
        position,
        stream,
        version,
        event_id,
        type,
        payload,
        Metadata(**metadata),
        partition_key,
        tag,
        recorded_at,
    )


async def _load(connection: Connection, log: str, wanted: Sequence[Wanted]) -> Sequence[History]:
    snapshots = await _snapshots(connection, [want for want in wanted if want.schema])
    after = [snapshots[want.stream].version if want.stream in snapshots else want.after for want in wanted]
    rows = await connection.fetch(
        _QUERIES["histories"],
        [want.stream.type for want in wanted],
        [want.stream.id for want in wanted],
        after,
        [want.upto for want in wanted],
    )
    events: list[list[Recorded]] = [[] for _ in wanted]
    for row in rows:
        index = row[0] - 1
        events[index].append(_recorded(log, row[1], wanted[index].stream, row[2:]))
    return [History(snapshots.get(want.stream), found) for want, found in zip(wanted, events, strict=True)]


async def _snapshots(connection: Connection, wanted: Sequence[Wanted]) -> dict[StreamId, Snapshot]:
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


class PostgresLease:
    """A lease as a row with an expiry; the database's clock decides."""

    def __init__(self, pool: Pool, name: str, holder: str, *, seconds: float = 5.0) -> None:
        """``holder`` names this replica; ``seconds``: how long it is held without being renewed."""
        self._pool = pool
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._turn = asyncio.Lock()

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs ``work`` whenever this replica holds the lease, for ever; cancels it when the lease is lost."""
        while True:
            if not await self._take():
                await asyncio.sleep(self._seconds / 5)
                continue
            async with asyncio.TaskGroup() as group:
                running = group.create_task(_run(work))
                group.create_task(self._renew_while(running))

    async def _renew_while(self, running: asyncio.Task[None]) -> None:
        try:
            while not running.done():
                await asyncio.wait([running], timeout=self._seconds / 3)
                if not running.done() and not await self._take():
                    structlog.get_logger().info("lease.lost", lease=self._name)
                    running.cancel()
                    return
        except asyncio.CancelledError:
            # Without waiting longer for a server that does not answer: the lease expires by itself.
            with suppress(Unavailable, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await to_its_end(self._ask("give_up_lease"))
            raise

    async def _take(self) -> bool:
        """Whether the lease is held now. While the database is away, nobody else can take it either."""
        try:
            return bool(await to_its_end(self._ask("take_lease", self._seconds)))
        except Unavailable:
            return True

    async def _ask(self, query: str, *arguments: float) -> list[asyncpg.Record]:
        async with self._turn:  # else a renewal under way could take again what is being given up
            return await fetch(self._pool, _QUERIES[query], self._name, self._holder, *arguments)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
