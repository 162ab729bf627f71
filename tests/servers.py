"""Real servers for tests: the project's own embedded ones, or those that POSTGRES_URL and NATS_URL name."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from nats.js.errors import NotFoundError

from tests.waiting import until
from twinlog.dev import EmbeddedNats, EmbeddedPostgres
from twinlog.testing.internals import NatsClient, database_url


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with a short path, which a server that runs as another user may enter."""
    path = Path(tempfile.mkdtemp(prefix="twinlog-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class _Postgres(EmbeddedPostgres):
    """A Postgres that is gone once it was killed: until they notice, sessions of a dead server go on answering."""

    async def kill(self) -> None:
        sessions = _children(self.pid)
        await super().kill()
        await until(lambda: not any(session.exists() for session in sessions))


def _children(pid: int) -> list[Path]:
    """Of a process, where Linux lists them."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [Path("/proc", child) for child in listed.read_text().split()] if listed.exists() else []


@asynccontextmanager
async def postgres_server() -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that the test may stop, kill and start again."""
    with folder() as path:
        async with _Postgres(path / "pg") as server:
            yield server


@asynccontextmanager
async def nats_server() -> AsyncIterator[EmbeddedNats]:
    """A NATS that the test may stop, kill and start again."""
    with folder() as path:
        async with EmbeddedNats(path / "nats") as server:
            yield server


def unique(prefix: str = "t") -> str:
    """A name for a log, and so for its database and its stream, that no other test uses."""
    return f"{prefix}_{uuid4().hex[:12]}"


async def execute(server_url: str, statement: str, database: str = "postgres") -> None:
    """Runs one statement on a connection of its own."""
    connection = await asyncpg.connect(database_url(server_url, database))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def url_of(server_url: str, user: str) -> str:
    """The server's URL for another user, whose password is its name."""
    parts = urlsplit(server_url)
    return urlunsplit(parts._replace(netloc=f"{user}:{user}@{parts.netloc.rpartition('@')[2]}"))


async def new_user(server_url: str, user: str) -> str:
    """Makes a user without any rights; gives the server's URL for it."""
    await execute(server_url, f"CREATE ROLE {user} LOGIN PASSWORD '{user}'")
    return url_of(server_url, user)


@asynccontextmanager
async def database(server_url: str) -> AsyncIterator[str]:
    """The name of a database that is there for the block only."""
    name = unique()
    await execute(server_url, f'CREATE DATABASE "{name}"')
    try:
        yield name
    finally:
        await execute(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@asynccontextmanager
async def stream(client: NatsClient) -> AsyncIterator[str]:
    """The name of a stream that is not there yet; what was made of it is deleted after the block."""
    name = unique()
    try:
        yield name
    finally:
        with suppress(NotFoundError):
            await client.jsm().delete_stream(name)
