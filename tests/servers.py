"""Real servers for tests, those of :mod:`twinlog.testing.servers`, and users on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
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


class Postgres(EmbeddedPostgres):
    """A Postgres that is gone once it was killed: until they notice, sessions of a dead server go on answering.

    The data of all but the first are copies, each with an identifier of its own.
    """

    async def _initialise(self) -> None:
        if not _COPIES.make(self._data):
            await super()._initialise()

    async def _lock_out_others(self) -> None:
        await super()._lock_out_others()
        _COPIES.keep(self._data, self.folder / "password")

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


_TEMPLATES: dict[str, str] = {}
"""By the URL of a server, what databases of its tests are copies of: how to make one."""


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
        _TEMPLATES[server_url] = f'TEMPLATE "{original}"{strategy}'
        try:
            yield
        finally:
            del _TEMPLATES[server_url]


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
        await servers._drop(server_url, name)


async def create_database(server_url: str, name: str) -> None:
    """The same, of a name that somebody else deletes."""
    await execute(server_url, f'CREATE DATABASE "{name}" {_TEMPLATES.get(server_url, "")}')


def url_of(server_url: str, user: str) -> str:
    """The server's URL for another user, whose password is its name."""
    parts = urlsplit(server_url)
    return urlunsplit(parts._replace(netloc=f"{user}:{user}@{parts.netloc.rpartition('@')[2]}"))


async def new_user(server_url: str, user: str) -> str:
    """Makes a user without any rights; gives the server's URL for it."""
    await execute(server_url, f"CREATE ROLE {user} LOGIN PASSWORD '{user}'")
    return url_of(server_url, user)
