"""A service that owns a log, in a process of its own: its wiring over Postgres and JetStream, and its gRPC host.

Leaving the block undoes it in order: no new calls → calls in flight → cursors → writer → relay → connections.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twinlog import logs
from twinlog.config import Settings
from twinlog.dead_letter_service import NAME as LETTERS
from twinlog.dead_letter_service import DeadLetterService
from twinlog.jetstream import JetStreamTwin, close, connect
from twinlog.nats_client import NatsClient
from twinlog.paging import PageTokens
from twinlog.ports import RandomIds, SystemClock
from twinlog.postgres import PostgresLease, PostgresLog, open_log, stop_waiting
from twinlog.rpc import Service, serve
from twinlog.runtime import Shutdown
from twinlog.v1.dead_letter_service_pb2_grpc import add_DeadLetterServiceServicer_to_server
from twinlog.wiring import Wiring


class Node(Wiring):
    """A wiring with servers behind it."""

    log: PostgresLog

    def __init__(
        self, name: str, log: PostgresLog, client: NatsClient, settings: Settings, shutdown: Shutdown
    ) -> None:
        ids = RandomIds()
        super().__init__(
            name,
            log,
            twin=lambda of: JetStreamTwin(client, of, replicas=settings.stream_replicas),
            lease=lambda work: PostgresLease(log.pool, work, f"{name}-{ids.uuid7()}"),
            clock=SystemClock(),
            ids=ids,
            on_crash=shutdown.crash,
        )
        self.client = client
        self._shutdown = shutdown

    async def serve(self, *services: Service, address: str, setting: str, domain: str) -> None:
        """Serves these and the dead letters until the process is asked to stop."""
        pages = PageTokens(f"dead letters of {self.log.name}".encode())
        letters = DeadLetterService(self.office, pages)
        async with serve(
            [*services, (letters, add_DeadLetterServiceServicer_to_server, LETTERS)],
            address=address,
            setting=setting,
            domain=domain,
            health=[self.relay, *self.watched],
            signals={"dead-letters": self.office},
        ):
            await self._shutdown.wait()
        stop_waiting(self.log.pool)


@asynccontextmanager
async def open_node(
    settings: Settings, shutdown: Shutdown, *packages: str, name: str, log: str, database: str
) -> AsyncIterator[Node]:
    """The service ``name`` with its ``log`` in its ``database``; waits for servers that are not there yet."""
    logs.configure(settings.log_level, settings.log_format)
    client = await connect(settings.nats_url, name)
    try:
        async with open_log(settings.postgres_url, database, log, *packages) as own:
            node = Node(name, own, client, settings, shutdown)
            async with node.running():
                yield node
    finally:
        await close(client)
