"""Connections: pools, and what an error of the server means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg
import structlog

from twinlog._aio.tasks import to_its_end
from twinlog.model.errors import Unavailable
from twinlog.postgres.codecs import Connection as Connection
from twinlog.postgres.codecs import set_codecs
from twinlog.postgres.migrations import ensure_database, migrate

Pool: TypeAlias = "asyncpg.Pool[Any]"
T = TypeVar("T")

_ACQUIRE_SECONDS = 5.0
_STATEMENT_SECONDS = 30.0
_STOP_SECONDS = 0.5
_RETRY_FIRST, _RETRY_MOST = 0.1, 2.0
_NO_SERVICE = ("08", "53", "57", "58")
"""SQLSTATE classes of a server that is away, full, stopping or broken: the outcome is unknown or nothing."""


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
