"""The log behind a stream, where it is in a database of the same server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from twinlog.log.twin import Twin
from twinlog.log.wire import event_id_of
from twinlog.model.errors import Unavailable
from twinlog.postgres.connection import open_pool
from twinlog.postgres.database import connect
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.meaning import outages
from twinlog.postgres.repair import databases
from twinlog.postgres.urls import database_url


@asynccontextmanager
async def log_of(server_url: str, log: str, twin: Twin) -> AsyncIterator[PostgresLog | None]:
    """The log that has the events of its stream, to be read; None where no database of the server shows it.

    Raises Unavailable, TwinMissing and TwinDamaged.
    """
    database = await _database(server_url, twin)
    if not database:
        structlog.get_logger().info("view_build.from_stream", stream=twin.name)
        yield None
        return
    async with open_pool(database_url(server_url, database), size=1) as pool:
        yield PostgresLog(pool, log)


async def _database(server_url: str, twin: Twin) -> str:
    """The database whose log has the last event of the stream; empty: there is none within reach."""
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
            connection = await connect(url)
            try:
                found = await connection.fetchval(
                    "SELECT event_id::text FROM events WHERE position = $1", position
                )
            finally:
                await connection.close()
    except Unavailable:
        return False
    return bool(found == event_id)
