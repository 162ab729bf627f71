"""The log behind a stream, where it is in a database of the same server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from typing import cast

import structlog

from twinlog.log.twin import Twin
from twinlog.log.wire import event_id_of
from twinlog.model.errors import Unavailable
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.postgres.archive import Archive
from twinlog.postgres.codecs import Connection, json_of
from twinlog.postgres.database import SESSION, connect, connected
from twinlog.postgres.loading import metadata_of
from twinlog.postgres.meaning import outages
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.repair import databases
from twinlog.postgres.urls import database_url


class ReadEvent(Recorded):
    """An event whose metadata is parsed when somebody looks at it: hardly any view does."""

    @cached_property
    def metadata(self) -> Metadata:
        stored = cast("str | tuple[str, str]", self[7])
        metadata, extra = (stored, None) if isinstance(stored, str) else stored
        return metadata_of(json_of(metadata), None if extra is None else json_of(extra))


class FastReader:
    """Reads a log and its archive from the first event on, many at a time, over its own connection."""

    def __init__(self, connection: Connection, log: str) -> None:
        """``connection`` gives jsonb as text."""
        self._connection = connection
        self._log = log
        self._archive = Archive(log)

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """Up to ``limit`` events with a position greater than ``after``, in order. Raises Unavailable."""
        events = await self._table(after, limit)
        with outages():
            return await self._archive.filled(self._connection.fetch, self._table, after, limit, events)

    async def _table(self, after: int, limit: int) -> Sequence[Recorded]:
        with outages():
            rows = await self._connection.fetch(QUERIES["read"], after, limit)
        # As the classes would, without their calls: a rebuild makes millions.
        log, make, event, stream = self._log, tuple.__new__, ReadEvent, StreamId
        return [
            make(
                event,
                (
                    log,
                    position,
                    make(stream, (type, id)),
                    version,
                    event_id,
                    name,
                    payload,
                    metadata if extra is None else (metadata, extra),
                    key,
                    tag,
                    at,
                ),
            )
            for position, type, id, version, event_id, name, payload, metadata, key, tag, at, extra in rows
        ]


@asynccontextmanager
async def log_of(server_url: str, log: str, twin: Twin) -> AsyncIterator[FastReader | None]:
    """The log that has the events of its stream, to be read; None where no database of the server shows it.

    Raises Unavailable, TwinMissing and TwinDamaged.
    """
    database = await database_behind(server_url, twin)
    if not database:
        structlog.get_logger().info("view_build.from_stream", stream=twin.name)
        yield None
        return
    async with reader_of(database_url(server_url, database), log) as reader:
        yield reader


@asynccontextmanager
async def reader_of(url: str, log: str) -> AsyncIterator[FastReader]:
    """Reads the log in a database. Raises Unavailable."""
    connection = await connect(url)
    try:
        with outages():
            await connection.execute(f"{SESSION}; SET jit = off")
        yield FastReader(connection, log)
    finally:
        connection.terminate()


async def database_behind(server_url: str, twin: Twin) -> str:
    """The database whose log has the last event of the stream; empty: there is none within reach.

    Raises Unavailable, TwinMissing and TwinDamaged.
    """
    last = (await twin.state()).last
    message = await twin.message(last) if last else None
    wanted = event_id_of(message, last) if message else None
    if wanted is None:
        return ""
    for database in await _known(server_url):
        if await _has(database_url(server_url, database), last, str(wanted)):
            return database
    return ""


async def _known(server_url: str) -> list[str]:
    try:
        return [*await databases(server_url)]
    except Unavailable:  # of this user's rights, too
        return []


async def _has(url: str, position: int, event_id: str) -> bool:
    try:
        with outages():
            async with connected(url) as connection:
                found = await connection.fetchval(
                    "SELECT event_id::text FROM events WHERE position = $1", position
                )
    except Unavailable:
        return False
    return bool(found == event_id)
