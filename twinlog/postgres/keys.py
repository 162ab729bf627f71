"""The keys of persons in Postgres, in a database of their own: so logs can be copied without them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from twinlog.log.keys import KEY_BYTES
from twinlog.log.wrapping import Wrapping
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Connections, Pool, fetch, on_connection, open_database
from twinlog.postgres.named_queries import load_queries

PACKAGE = "twinlog.postgres.keys_sql"
_QUERIES = load_queries(PACKAGE)
_CONNECTIONS = 2


@asynccontextmanager
async def open_keys(server_url: str, database: str, wrapping: Wrapping) -> AsyncIterator[PostgresKeys]:
    """The keys in a database of a server; it is created if it is missing. Raises ConfigurationError."""
    made = Connections()
    async with open_database(server_url, database, PACKAGE, size=_CONNECTIONS, on_connect=made.count) as pool:
        yield PostgresKeys(pool, wrapping, made)


class PostgresKeys:
    """The keys of one installation."""

    def __init__(self, pool: Pool, wrapping: Wrapping, connections: Connections | None = None) -> None:
        self.pool = pool
        self._wrapping = wrapping
        self._connections = connections or Connections()

    @property
    def connections(self) -> int:
        """How many connections were made."""
        return self._connections.made

    async def get(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        rows = await fetch(self.pool, _QUERIES["keys"], list(subjects))
        return {subject: self._unwrapped(subject, key, by) for subject, key, by in rows}

    async def get_or_make(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        while missing := [subject for subject in subjects if subject not in found]:
            new = [self._wrapping.wrap(subject, os.urandom(KEY_BYTES)) for subject in missing]
            rows = await fetch(self.pool, _QUERIES["make_keys"], missing, new, self._wrapping.newest)
            found |= {subject: self._unwrapped(subject, key, by) for subject, key, by in rows}
        return found

    async def destroy(self, subject: str) -> bool:
        rows = await fetch(self.pool, _QUERIES["destroy_key"], subject)
        return bool(rows[0][0])

    async def destroyed(self, within: timedelta) -> Collection[str]:
        return [row[0] for row in await fetch(self.pool, _QUERIES["destroyed_keys"], within)]

    async def ever_destroyed(self) -> Mapping[str, datetime]:
        """When the key of each erased person was destroyed."""
        return {row[0]: row[1] for row in await fetch(self.pool, _QUERIES["all_destroyed"])}

    async def rewrap(self, limit: int) -> int:
        async def work(connection: Connection) -> int:
            async with connection.transaction():
                rows = await connection.fetch(_QUERIES["keys_to_rewrap"], self._wrapping.newest, limit)
                for subject, stored, by in rows:
                    wrapped = self._wrapping.wrap(subject, self._wrapping.unwrap(subject, stored, by))
                    await connection.execute(_QUERIES["rewrap_key"], subject, wrapped, self._wrapping.newest)
            return len(rows)

        return await on_connection(self.pool, work)

    async def wrapped_by(self) -> Mapping[str, int]:
        return {row[0]: row[1] for row in await fetch(self.pool, _QUERIES["wrappings"])}

    def _unwrapped(self, subject: str, stored: bytes | None, by: str) -> bytes | None:
        return None if stored is None else self._wrapping.unwrap(subject, stored, by)
