"""Connection pools, and what an error of the server means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

import asyncpg
import structlog

from twinlog._aio.retrying import Retrying
from twinlog._aio.tasks import to_its_end
from twinlog.model.errors import Unavailable
from twinlog.postgres.codecs import Connection as Connection
from twinlog.postgres.codecs import set_codecs
from twinlog.postgres.migrations import ensure_database, migrate

Pool: TypeAlias = "asyncpg.Pool[Any]"
T = TypeVar("T")

_ACQUIRE_SECONDS = 5.0
_STATEMENT_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_STOP_SECONDS = 0.5
_RETRY_FIRST_SECONDS = 0.1
_NO_SERVICE = ("08", "53", "57", "58")
"""SQLSTATE classes of a server that is away, full, stopping or broken: nothing was done, or the outcome is unknown."""


@contextmanager
def outages() -> Iterator[None]:
    """Translates what asyncpg raises while the server is out of service into Unavailable."""
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
    """Raises CancelledError if asyncpg failed while cleaning up after a cancellation, which must not be lost."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def acquire(pool: Pool) -> asyncpg.pool.PoolAcquireContext[Any]:
    """A connection of a pool, within seconds: asyncpg itself would wait endlessly. Use inside :func:`outages`."""
    return pool.acquire(timeout=_ACQUIRE_SECONDS)


async def fetch(pool: Pool, query: str, *arguments: Any) -> list[asyncpg.Record]:
    """The rows of a statement, which completes even if its caller is cancelled. Raises Unavailable."""
    return await to_its_end(_fetch(pool, query, *arguments))


async def _fetch(pool: Pool, query: str, *arguments: Any) -> list[asyncpg.Record]:
    with outages():
        async with acquire(pool) as connection:
            rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
            return rows


async def until_available(what: str, attempt: Callable[[], Awaitable[T]]) -> T:
    """Retries until the server answers; logs once that it waits, and once that it goes on."""
    log = structlog.get_logger()

    async def attempted() -> T:
        with outages():
            return await attempt()

    retrying = Retrying(
        say_failing=lambda error: log.warning("postgres.waiting", what=what, why=str(error)),
        say_working=lambda: log.info("postgres.available", what=what),
        on=(Unavailable,),
        first_seconds=_RETRY_FIRST_SECONDS,
    )
    return await retrying(attempted)


async def _set_up(connection: Connection) -> None:
    # Plans are made while tables are small, when scanning the whole table is cheapest, and then kept.
    await connection.execute("SET enable_seqscan = off; SET jit = off")
    await set_codecs(connection)


async def _no_reset(_connection: Connection) -> None:
    """Skips asyncpg's round trip that clears session state: nothing here leaves any behind."""


@asynccontextmanager
async def open_pool(
    url: str, *packages: str, size: int = 5, on_connect: Callable[[], None] = lambda: None
) -> AsyncIterator[Pool]:
    """A pool for a database, once these packages' migrations are applied; waits for an absent server.

    ``on_connect``: called at every new connection.
    """

    async def set_up(connection: Connection) -> None:
        await _set_up(connection)
        on_connect()

    async def prepare() -> Pool:
        connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS)
        try:
            for package in packages:
                await migrate(connection, package)
        finally:
            await connection.close()
        return await asyncpg.create_pool(
            url,
            # With a minimum, asyncpg would keep connecting, and log each refusal, while the server is away.
            min_size=0,
            max_size=size,
            command_timeout=_STATEMENT_SECONDS,
            timeout=_ACQUIRE_SECONDS,
            init=set_up,
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
    """Closes every connection shortly, so that a stop never waits long for a server that does not answer.

    Statements cut off have an unknown outcome; the next process resolves or repeats them.
    """
    asyncio.get_running_loop().call_later(_STOP_SECONDS, pool.terminate)


@asynccontextmanager
async def open_database(
    server_url: str, database: str, *packages: str, on_connect: Callable[[], None] = lambda: None
) -> AsyncIterator[Pool]:
    """A pool for a database of a server; the database is created if it is missing."""
    url = await until_available("database", lambda: ensure_database(server_url, database))
    async with open_pool(url, *packages, on_connect=on_connect) as pool:
        yield pool
