"""The keys of persons in Postgres, in their own database: so logs can be copied without them.

Beside each log is noted who is erased.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from twinlog.log.keys import KEY_BYTES, KeysUnavailable
from twinlog.log.wrapping import Wrapping
from twinlog.model.errors import ConfigurationError
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import (
    Connections,
    Pool,
    fetch,
    on_connection,
    prepared_pool,
    until_available,
)
from twinlog.postgres.database import PlacedConnection, connect_to_database
from twinlog.postgres.named_queries import QUERIES, load_queries
from twinlog.postgres.urls import database_url

PACKAGE = "twinlog.postgres.keys_sql"
_QUERIES = load_queries(PACKAGE)
START_SECONDS = 5.0
"""How long a start waits for them."""
_AGAIN_SECONDS = 5.0
_CONNECTIONS = 2


@asynccontextmanager
async def open_keys(server_url: str, database: str, wrapping: Wrapping) -> AsyncIterator[PostgresKeys]:
    """The keys in a database of a server; it is created if it is missing. Raises ConfigurationError and Unavailable."""
    first = await connect_to_database(server_url, database, PACKAGE)
    async with _opened(database_url(server_url, database), first, wrapping) as keys:
        yield keys


@asynccontextmanager
async def _opened(url: str, first: PlacedConnection, wrapping: Wrapping) -> AsyncIterator[PostgresKeys]:
    made = Connections()
    async with prepared_pool(url, size=_CONNECTIONS, on_connect=made.count, first=first) as pool:
        yield PostgresKeys(pool, wrapping, made)


@asynccontextmanager
async def open_keys_by_and_by(
    server_url: str, database: str, wrapping: Wrapping
) -> AsyncIterator[PostgresKeys]:
    """The same; where their server is away for some seconds, they are opened in the background, and away until then."""
    try:
        async with asyncio.timeout(START_SECONDS):
            first = await _awaited(server_url, database)
    except TimeoutError:
        late = LateKeys(server_url, database, wrapping)
        opening = asyncio.create_task(late.run())
        try:
            yield late
        finally:
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        return
    async with _opened(database_url(server_url, database), first, wrapping) as keys:
        yield keys


async def _awaited(server_url: str, database: str) -> PlacedConnection:
    """A connection to the database, once its server is up. Raises ConfigurationError."""
    return await until_available("keys", lambda: connect_to_database(server_url, database, PACKAGE))


class PostgresKeys:
    """The keys of one installation."""

    def __init__(self, pool: Pool | None, wrapping: Wrapping, connections: Connections | None = None) -> None:
        self._pool = pool
        self._wrapping = wrapping
        self._connections = connections or Connections()
        self._why = ""
        """Why there is no pool."""
        self._looked_at: dict[timedelta, datetime] = {}
        """The database's time when it was last asked for that long, which somebody may set forward before the next."""

    @property
    def pool(self) -> Pool:
        """Connections to them. Raises KeysUnavailable while there are none."""
        if self._pool is None:
            raise KeysUnavailable(why=self._why)
        return self._pool

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
        [(now, found)] = await fetch(
            self.pool, _QUERIES["destroyed_keys"], within, self._looked_at.get(within)
        )
        self._looked_at[within] = now
        return list(found)

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


class LateKeys(PostgresKeys):
    """Keys that are opened while others work already; until then, every question ends as in an outage."""

    def __init__(self, server_url: str, database: str, wrapping: Wrapping) -> None:
        super().__init__(None, wrapping)
        self._place = server_url, database
        self._why = f"database {database} was away when the process started, and is waited for"

    async def run(self) -> None:
        """Opens them, and has them open until it is cancelled."""
        while True:
            try:
                first, count = await _awaited(*self._place), self._connections.count
                url = database_url(*self._place)
                async with prepared_pool(url, size=_CONNECTIONS, on_connect=count, first=first) as self._pool:
                    await asyncio.Event().wait()
            except ConfigurationError as error:  # what somebody has to mend, who is told by every refusal
                self._why = str(error)
                await asyncio.sleep(_AGAIN_SECONDS)


class PostgresErasures:
    """Who is erased, as it is noted beside one log."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note(self, subjects: Collection[str]) -> None:
        await fetch(self._pool, QUERIES["note_erased"], [*subjects])

    async def noted(self) -> Collection[str]:
        return [row[0] for row in await fetch(self._pool, QUERIES["erased"])]
