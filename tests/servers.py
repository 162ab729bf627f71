"""Real servers for tests, those of :mod:`twinlog.testing.servers`, and users on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from tests.postgres_copies import Copies
from tests.waiting import until
from twinlog.dev import EmbeddedPostgres
from twinlog.testing import servers
from twinlog.testing.internals import database_url, open_log
from twinlog.testing.servers import database as empty_database
from twinlog.testing.servers import execute, folder, nats_server, stream, unique

__all__ = [
    "CopiedPostgres",
    "Postgres",
    "create_database",
    "database",
    "empty_database",
    "execute",
    "folder",
    "nats_server",
    "new_user",
    "own_clock",
    "postgres_server",
    "set_clock",
    "stream",
    "template",
    "unique",
    "url_of",
]


_COPIES = Copies()


class CopiedPostgres(EmbeddedPostgres):
    """A Postgres without initdb: the data of all but the first are copies, each with an identifier of its own."""

    async def _initialise(self) -> None:
        if not _COPIES.make(self._data):
            await super()._initialise()

    async def _lock_out_others(self) -> None:
        await super()._lock_out_others()
        _COPIES.keep(self._data, self.folder / "password")


class Postgres(CopiedPostgres):
    """One that is gone once it was killed: until they notice, sessions of a dead server go on answering."""

    async def kill(self) -> None:
        sessions = _children(self.pid)
        await super().kill()
        await until(lambda: not any(session.exists() for session in sessions))


def _children(pid: int) -> list[Path]:
    """Of a process, where Linux lists them."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [Path("/proc", child) for child in listed.read_text().split()] if listed.exists() else []


_CLOCK = """
    CREATE SCHEMA clock;
    CREATE TABLE clock.ahead AS SELECT interval '0' AS of_the_machine;
    CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS 'SELECT pg_catalog.now() + of_the_machine FROM clock.ahead';
    ALTER DATABASE "{name}" SET search_path = clock, pg_catalog, public;
"""


async def own_clock(server_url: str, database: str) -> None:
    """Gives new sessions of a database another ``now()``, which can be set."""
    await execute(server_url, _CLOCK.format(name=database), database)


async def set_clock(server_url: str, database: str, ahead: str) -> None:
    """Sets it, by an interval from the machine's, such as ``-1 hour``."""
    await execute(server_url, f"UPDATE clock.ahead SET of_the_machine = '{ahead}'", database)


@asynccontextmanager
async def postgres_server() -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that the test may stop, kill and start again."""
    async with servers.postgres_server(Postgres) as server:
        yield server


class _Maker:
    """Makes and drops databases on one connection, in a thread of its own, whatever loop a test runs in.

    To connect takes longer than either.
    """

    def __init__(self, server_url: str, template: str) -> None:
        """``template``: how a database becomes a copy of what the server's tests have."""
        self._url = database_url(server_url, "postgres")
        self._template = template
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="databases of tests", daemon=True)
        self._lock = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._begun(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def make(self, name: str) -> None:
        await self._run(f'CREATE DATABASE "{name}" {self._template}')

    async def drop(self, name: str) -> None:
        await self._run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    async def _run(self, statement: str) -> None:
        await asyncio.wrap_future(self._begun(self._execute(statement)))

    def _begun(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _execute(self, statement: str) -> None:
        async with self._lock:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._url)
            await self._connection.execute(statement)

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


_MAKERS: dict[str, _Maker] = {}
"""By the URL of a server whose tests have a template."""


@asynccontextmanager
async def template(server_url: str) -> AsyncIterator[None]:
    """Within the block, databases that tests ask this server for have a log's tables already.

    To make these takes five times as long as to copy them. Copies share the secret of page tokens.
    """
    async with empty_database(server_url) as original:
        async with open_log(server_url, original, "template"):
            pass
        # Only what nobody is connected to can be copied; and nobody takes it for one more log of the server.
        await execute(server_url, f'ALTER DATABASE "{original}" ALLOW_CONNECTIONS false')
        connection = await asyncpg.connect(database_url(server_url, "postgres"))
        try:
            others = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1)"

            async def nobody_is_in() -> bool:
                return bool(await connection.fetchval(others, original))

            await until(nobody_is_in)
            # Before Postgres 15 there was no other way to copy; by the log of changes it takes three times as long.
            strategy = " STRATEGY file_copy" if connection.get_server_version() >= (15,) else ""
        finally:
            await connection.close()
        with _Maker(server_url, f'TEMPLATE "{original}"{strategy}') as maker:
            _MAKERS[server_url] = maker
            try:
                yield
            finally:
                del _MAKERS[server_url]


@asynccontextmanager
async def database(server_url: str) -> AsyncIterator[str]:
    """The name of a database that is there for the block only; it has a log's tables, where the server has a template.

    Whether they are made where they are missing is for tests that take an ``empty_database``.
    """
    name = unique()
    await create_database(server_url, name)
    try:
        yield name
    finally:
        if maker := _MAKERS.get(server_url):
            await maker.drop(name)
        else:
            await servers._drop(server_url, name)


async def create_database(server_url: str, name: str) -> None:
    """The same, of a name that somebody else deletes."""
    if maker := _MAKERS.get(server_url):
        await maker.make(name)
    else:
        await execute(server_url, f'CREATE DATABASE "{name}"')


def url_of(server_url: str, user: str) -> str:
    """The server's URL for another user, whose password is its name."""
    parts = urlsplit(server_url)
    return urlunsplit(parts._replace(netloc=f"{user}:{user}@{parts.netloc.rpartition('@')[2]}"))


async def new_user(server_url: str, user: str) -> str:
    """Makes a user without any rights; gives the server's URL for it."""
    await execute(server_url, f"CREATE ROLE {user} LOGIN PASSWORD '{user}'")
    return url_of(server_url, user)
