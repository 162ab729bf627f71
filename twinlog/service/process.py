"""A service in a process of its own: over Postgres and JetStream, with settings, logs and signals.

Leaving the block undoes it in order: no new calls → calls in flight → cursors → writer → relay → connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from twinlog.consume import Middleware
from twinlog.jetstream.connection import close, connect
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.system import RandomIds, SystemClock
from twinlog.postgres.connection import stop_waiting
from twinlog.postgres.lease import PostgresLease
from twinlog.postgres.log import open_log
from twinlog.service.logging import configure_logging
from twinlog.service.runtime import Shutdown
from twinlog.service.service import Endpoint, Service
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec


@asynccontextmanager
async def open_service(
    spec: ServiceSpec, settings: Settings, shutdown: Shutdown, *, middleware: Sequence[Middleware] = ()
) -> AsyncIterator[Service]:
    """A service with its log in its database; waits for servers that are not there yet.

    ``middleware``: see :class:`~twinlog.service.service.Service`. Raises ConfigurationError.
    """
    configure_logging(settings.log_level, settings.log_format)
    client = await connect(settings.nats_url, spec.name)
    ids = RandomIds()
    try:
        async with open_log(settings.postgres_url, spec.database, spec.log, *spec.migrations) as own:
            service = Service(
                spec.name,
                own,
                twin=lambda of: JetStreamTwin(client, of, replicas=settings.stream_replicas),
                lease=lambda work: PostgresLease(own.pool, work, f"{spec.name}-{ids.uuid7()}"),
                schema=spec.schema,
                clock=SystemClock(),
                ids=ids,
                on_crash=shutdown.crash,
                aggregates=spec.aggregates,
                middleware=middleware,
                messages=client,
                endpoint=Endpoint(spec.address_in(settings), spec.address_setting, spec.domain),
                until_stopped=shutdown.wait,
                keep_requests=timedelta(days=settings.keep_requests_days),
            )
            async with service.running():
                yield service
                stop_waiting(own.pool)
    finally:
        await close(client)
