"""A service in a process of its own: over Postgres and JetStream, with settings, logs and signals.

Leaving the block undoes it in order: no new calls → calls in flight → cursors → writer → relay → connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from twinlog.consume import Middleware
from twinlog.jetstream.connection import close, connect
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.system import RandomIds, SystemClock
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.schema import Schema
from twinlog.postgres.connection import stop_waiting
from twinlog.postgres.lease import PostgresLease
from twinlog.postgres.log import open_log
from twinlog.service.logging import configure_logging
from twinlog.service.runtime import Shutdown
from twinlog.service.service import Service
from twinlog.service.settings import Settings


@asynccontextmanager
async def open_service(
    settings: Settings,
    shutdown: Shutdown,
    *packages: str,
    name: str,
    log: str,
    database: str,
    schema: Schema,
    aggregates: Sequence[AnyAggregate] = (),
    middleware: Sequence[Middleware] = (),
) -> AsyncIterator[Service]:
    """The service ``name`` with its ``log`` in its ``database``; waits for servers that are not there yet.

    ``packages`` have the migrations of its views. ``schema``, ``aggregates``, ``middleware``: see
    :class:`~twinlog.service.service.Service`. Raises ConfigurationError.
    """
    configure_logging(settings.log_level, settings.log_format)
    client = await connect(settings.nats_url, name)
    ids = RandomIds()
    try:
        async with open_log(settings.postgres_url, database, log, *packages) as own:
            service = Service(
                name,
                own,
                twin=lambda of: JetStreamTwin(client, of, replicas=settings.stream_replicas),
                lease=lambda work: PostgresLease(own.pool, work, f"{name}-{ids.uuid7()}"),
                schema=schema,
                clock=SystemClock(),
                ids=ids,
                on_crash=shutdown.crash,
                aggregates=aggregates,
                middleware=middleware,
                messages=client,
                until_stopped=shutdown.wait,
            )
            async with service.running():
                yield service
                stop_waiting(own.pool)
    finally:
        await close(client)
