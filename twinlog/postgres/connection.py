"""Connection pools, and work on their connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias, TypeVar, cast

import asyncpg
import structlog

from twinlog._aio.retrying import Retrying, backoff
from twinlog._aio.tasks import to_its_end
from twinlog.model.errors import Unavailable
from twinlog.postgres.codecs import Connection, set_codecs
from twinlog.postgres.database import (
    SESSION,
    Admit,
    PlacedConnection,
    close,
    connect,
    connect_placed,
    connect_to_database,
    everything,
    migrate_all,
    refused_at_start,
)
from twinlog.postgres.meaning import LostRace, outages, rule_of
from twinlog.postgres.urls import database_url

Pool: TypeAlias = "asyncpg.Pool[Any]"
T = TypeVar("T")

_ACQUIRE_SECONDS = 5.0
_POOL_CONNECT_SECONDS = 4.0
"""Less than it takes to give up on a connection, so that the reason is told."""
_STATEMENT_SECONDS = 30.0
_CANCEL_SECONDS = 2.0
"""For a server that has left a statement without an answer to take back its cancellation; asyncpg takes another 30."""
_STOP_SECONDS = 0.5
_CUT_SECONDS = 2.0
"""As long as a stop may take to commit and copy what was begun."""
_RETRY_FIRST_SECONDS = 0.1
_RACES = 5
"""How often work that has lost a race is done again at once."""


async def on_connection(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Does work on a connection of the pool; it completes even if its caller is cancelled. Raises Unavailable.

    The work is done again where it has lost a race, and then has done nothing.
    """
    return await to_its_end(in_task(pool, work))


async def in_task(pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T:
    """As :func:`on_connection`, in a task that is cancelled only when the process ends."""
    # One coroutine does it all: every read comes by here, and each more is resumed as often as it waits.
    for _ in range(_RACES):
        with suppress(LostRace):
            async with connection_of(pool) as connection:
                return await work(connection)
    async with connection_of(pool) as connection:
        return await work(connection)


@asynccontextmanager
async def connection_of(pool: Pool) -> AsyncIterator[Connection]:
    """A connection of the pool for a block. Raises Unavailable, also for what goes wrong inside."""
    with outages():
        connection = await _acquire(pool)
        try:
            yield connection
        except Exception as error:
            if (rule := rule_of(error)) and rule.reconnect:
                # Of a server that is gone without a word, each connection that is left would be waited for in turn.
                with suppress(Exception):
                    await pool.release(connection, timeout=_CANCEL_SECONDS)
                await pool.expire_connections()
            raise
        finally:
            await pool.release(connection)


async def _acquire(pool: Pool) -> asyncpg.pool.PoolConnectionProxy[Any]:
    """Within seconds: asyncpg itself would wait endlessly."""
    try:
        # A limit costs asyncpg a task and a timer.
        return await pool.acquire(timeout=None if pool.get_idle_size() else _ACQUIRE_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"no connection was free in {_ACQUIRE_SECONDS:g} s") from error
    except Unavailable as error:
        if not isinstance(error.__cause__, asyncpg.TooManyConnectionsError):
            raise
        refused = error
    return await _given_back(pool, refused)


async def _given_back(pool: Pool, refused: Unavailable) -> asyncpg.pool.PoolConnectionProxy[Any]:
    """One that the pool has: the server grants fewer than the pool may have, as to a role with a limit."""
    waited = 0.0
    for wait in backoff():
        await asyncio.sleep(wait)
        waited += wait
        if waited > _ACQUIRE_SECONDS / 2 or not pool.get_size():  # nobody is going to give one back
            break
        try:
            return await pool.acquire(timeout=_ACQUIRE_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"no connection was free in {_ACQUIRE_SECONDS:g} s") from error
        except Unavailable as error:
            refused = error
    raise refused


async def fetch(pool: Pool, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows of a statement, which completes even if its caller is cancelled. Raises Unavailable."""
    return await to_its_end(in_task(pool, lambda connection: connection.fetch(query, *arguments)))


_SILENT_SECONDS = 20.0
_SILENT = f"no answer for {_SILENT_SECONDS:g} s; it takes long, or somebody holds a lock (pg_stat_activity tells who)"


async def until_available(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Retries until the server answers; logs once that it waits, and once that it goes on.

    Raises ConfigurationError where waiting would not help.
    """
    log = structlog.get_logger()

    async def attempted() -> T:
        # Of the type that outages have, so that one line tells of both.
        with retrying.told_after(_SILENT_SECONDS, Unavailable(_SILENT)), refused_at_start(), outages():
            return await attempt()

    retrying = Retrying(
        say_failing=lambda error: log.warning("postgres.waiting", what=what, why=str(error)),
        say_working=lambda: log.info("postgres.available", what=what),
        on=(Unavailable,),
        first_seconds=_RETRY_FIRST_SECONDS,
    )
    return await retrying(attempted)


async def _first(what: str, attempt: Callable[[], Awaitable[T]], waits: bool) -> T:
    """The first connection of a pool. ``waits``: see :func:`open_pool`."""
    if waits:
        return await until_available(what, attempt)
    with refused_at_start(), outages():
        return await attempt()


async def go_to(connection: Connection, path: str) -> None:
    """Has a connection of a pool look names up in these schemas first; empty: as its session began."""
    if getattr(connection, "path", "") != path:
        await connection.go_to(path)  # type: ignore[union-attr]


async def _set_up(connection: Connection) -> None:
    # Plans are made while tables are small, when scanning the whole table is cheapest, and then kept.
    await connection.execute(f"{SESSION}; SET enable_seqscan = off; SET jit = off")
    await set_codecs(connection)


async def _no_reset(_connection: Connection) -> None:
    """Skips asyncpg's round trip that clears session state: nothing here leaves any behind."""


@asynccontextmanager
async def open_pool(url: str, *packages: str, size: int = 5, waits: bool = True) -> AsyncIterator[Pool]:
    """A pool for a database, once these packages' migrations are applied.

    ``waits``: for an absent server; if not, as for a command that somebody has called, Unavailable is raised. Raises
    ConfigurationError.
    """

    async def prepare() -> PlacedConnection:
        connection = await connect_placed(url)
        try:
            await migrate_all(connection, packages)
        except BaseException:
            await close(connection)
            raise
        return connection

    first = await _first("migrations", prepare, waits)
    async with prepared_pool(url, size=size, first=first) as pool:
        yield pool


@asynccontextmanager
async def prepared_pool(
    url: str,
    *,
    size: int,
    on_connect: Callable[[], None] = lambda: None,
    reads_only: bool = False,
    first: PlacedConnection | None = None,
) -> AsyncIterator[Pool]:
    """A pool for a database that was looked at already. ``reads_only``: the server lets it change nothing.

    ``first``: the connection that looked at it, which becomes the pool's first one.
    """
    at_hand = [first] if first else []

    async def connection(*arguments: Any, **options: Any) -> asyncpg.Connection:
        if at_hand:
            taken = at_hand.pop()  # whatever comes of it, the next one is made anew
            taken.limit(_STATEMENT_SECONDS)
            return taken
        return await connect(*arguments, **options)

    async def set_up(connection: Connection) -> None:
        await _set_up(connection)
        if reads_only:
            await connection.execute("SET default_transaction_read_only = on")
        on_connect()

    pool = await asyncpg.create_pool(
        url,
        connect=cast(Any, connection),
        # With a minimum, asyncpg would keep connecting, and log each refusal, while the server is away.
        min_size=0,
        max_size=size,
        command_timeout=_STATEMENT_SECONDS,
        timeout=_POOL_CONNECT_SECONDS,
        init=set_up,
        connection_class=PlacedConnection,
        reset=_no_reset,
    )
    try:
        if first:
            with suppress(Exception):  # who needs a connection is told
                await pool.release(await pool.acquire())
        yield pool
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await pool.close()
        pool.terminate()


class Connections:
    """How many connections a pool has made: a new one may lead to another server."""

    def __init__(self) -> None:
        self.made = 0

    def count(self) -> None:
        self.made += 1


def use_of(pool: Pool) -> Mapping[str, int]:
    """The connections of a pool, by what they do, and who waits for one."""
    made, idle = pool.get_size(), pool.get_idle_size()
    # asyncpg has no public word for those that wait.
    waiting = sum(not getter.done() for getter in getattr(getattr(pool, "_queue", None), "_getters", ()))
    return {"most": pool.get_max_size(), "made": made, "in_use": made - idle, "waiting": waiting}


def stop_waiting(pool: Pool) -> None:
    """Closes every connection in a moment, so that a stop waits only briefly for a server that is silent.

    Not while the stop may still commit and copy: the server of a busy machine is slow, not silent. Statements cut off
    have an unknown outcome; the next process resolves or repeats them.
    """
    asyncio.get_running_loop().call_later(_CUT_SECONDS, pool.terminate)


@asynccontextmanager
async def open_database(
    server_url: str,
    database: str,
    *packages: str,
    size: int,
    on_connect: Callable[[], None] = lambda: None,
    admit: Admit = everything,
    waits: bool = True,
) -> AsyncIterator[Pool]:
    """A pool for a database of a server; the database is created if it is missing. Raises ConfigurationError.

    ``admit``: see :func:`connect_to_database`; ``waits``: see :func:`open_pool`.
    """

    async def prepare() -> PlacedConnection:
        return await connect_to_database(server_url, database, *packages, admit=admit)

    first = await _first("database", prepare, waits)
    url = database_url(server_url, database)
    async with prepared_pool(url, size=size, on_connect=on_connect, first=first) as pool:
        yield pool
