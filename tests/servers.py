"""Real servers for tests, those of :mod:`twinlog.testing.servers`, and users on them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from tests.postgres_copies import Copies
from tests.waiting import until
from twinlog.dev import EmbeddedPostgres
from twinlog.testing import servers
from twinlog.testing.servers import database, execute, folder, nats_server, stream, unique

__all__ = [
    "Postgres",
    "database",
    "execute",
    "folder",
    "nats_server",
    "new_user",
    "postgres_server",
    "stream",
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


@asynccontextmanager
async def postgres_server() -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that the test may stop, kill and start again."""
    async with servers.postgres_server(Postgres) as server:
        yield server


def url_of(server_url: str, user: str) -> str:
    """The server's URL for another user, whose password is its name."""
    parts = urlsplit(server_url)
    return urlunsplit(parts._replace(netloc=f"{user}:{user}@{parts.netloc.rpartition('@')[2]}"))


async def new_user(server_url: str, user: str) -> str:
    """Makes a user without any rights; gives the server's URL for it."""
    await execute(server_url, f"CREATE ROLE {user} LOGIN PASSWORD '{user}'")
    return url_of(server_url, user)
