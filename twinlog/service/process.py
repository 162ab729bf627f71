"""A service that owns a log, in a process of its own: its wiring over Postgres and JetStream, and its gRPC host.

Leaving the block undoes it in order: no new calls → calls in flight → cursors → writer → relay → connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.connection import close, connect
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.system import RandomIds, SystemClock
from twinlog.postgres.connection import stop_waiting
from twinlog.postgres.lease import PostgresLease
from twinlog.postgres.log import PostgresLog, open_log
from twinlog.rpc import Registration, serve
from twinlog.rpc.dead_letter_service import NAME as LETTERS
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.rpc.paging import PageTokens
from twinlog.service.logging import configure_logging
from twinlog.service.runtime import Shutdown
from twinlog.service.service import Service
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec
from twinlog.v1.dead_letter_service_pb2_grpc import add_DeadLetterServiceServicer_to_server


class HostedService(Service):
    """A wiring with servers behind it."""

    log: PostgresLog

    def __init__(
        self, spec: ServiceSpec, log: PostgresLog, client: NatsClient, settings: Settings, shutdown: Shutdown
    ) -> None:
        ids = RandomIds()
        super().__init__(
            spec.name,
            log,
            twin=lambda of: JetStreamTwin(client, of, replicas=settings.stream_replicas),
            lease=lambda work: PostgresLease(log.pool, work, f"{spec.name}-{ids.uuid7()}"),
            clock=SystemClock(),
            ids=ids,
            on_crash=shutdown.crash,
        )
        self.client = client
        self._spec = spec
        self._settings = settings
        self._shutdown = shutdown

    async def page_tokens(self) -> PageTokens:
        """The page tokens of the service's lists, signed with the secret of its database."""
        return PageTokens(await self.log.page_token_secret())

    async def serve(self, *services: Registration) -> None:
        """Serves these and the dead letters until the process is asked to stop."""
        letters = DeadLetterService(self.office, await self.page_tokens())
        async with serve(
            [*services, (letters, add_DeadLetterServiceServicer_to_server, LETTERS)],
            address=self._spec.address_in(self._settings),
            setting=self._spec.address_setting,
            domain=self._spec.domain,
            health=[self.relay, *self.watched],
            signals={"dead-letters": self.office},
        ):
            await self._shutdown.wait()
        stop_waiting(self.log.pool)


@asynccontextmanager
async def open_service(
    spec: ServiceSpec, settings: Settings, shutdown: Shutdown
) -> AsyncIterator[HostedService]:
    """A service with its log in its database; waits for servers that are not there yet."""
    configure_logging(settings.log_level, settings.log_format)
    client = await connect(settings.nats_url, spec.name)
    try:
        async with open_log(settings.postgres_url, spec.database, spec.log, *spec.migrations) as own:
            node = HostedService(spec, own, client, settings, shutdown)
            async with node.running():
                yield node
    finally:
        await close(client)
