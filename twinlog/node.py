"""A service that owns a log, put together: log, twin, writer, relay, cursors, timers, gRPC host.

Leaving the block undoes it in order: no new calls → calls in flight → cursors → writer → relay → connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nats.aio.client import Client

from twinlog import logs
from twinlog.config import Settings
from twinlog.cursor import Cursor, Handler
from twinlog.decider import AnyAggregate
from twinlog.jetstream import JetStreamTwin, connect
from twinlog.policies import Policies, PolicyHandler
from twinlog.ports import Clock, Ids, RandomIds, SystemClock
from twinlog.postgres import PostgresLease, PostgresLog, open_log
from twinlog.relay import Relay
from twinlog.rpc import Service, serve
from twinlog.rpc.health import Watched
from twinlog.runtime import Shutdown
from twinlog.schema import Schema
from twinlog.tasks import Tasks
from twinlog.timers import Timers
from twinlog.writer import Writer

_DRAIN = 3.0


@dataclass
class Node:
    """What a service wires its own parts to."""

    name: str
    """The service's; goes on leases and events."""
    settings: Settings
    shutdown: Shutdown
    client: Client
    log: PostgresLog
    writer: Writer
    relay: Relay
    tasks: Tasks
    """The cursors' and timers'."""
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=RandomIds)
    schema: Schema = field(default_factory=Schema)
    watched: list[Watched] = field(default_factory=list)
    """Parts whose problems make the service NOT_SERVING."""

    def follow(self, *tables: Policies) -> None:
        """Runs policies over the logs that they listen to."""
        for policies in tables:
            self.feed(policies.log, PolicyHandler(policies, self.writer, self.log, self.schema))

    def feed(self, log: str, handler: Handler) -> None:
        """Runs a handler over a log."""
        twin = JetStreamTwin(self.client, log, replicas=self.settings.stream_replicas)
        cursor = Cursor(twin, handler, self.lease(handler.consumer))
        self.watched.append(cursor)
        self.tasks.start(handler.consumer, cursor.run())

    def wake(self, *aggregates: AnyAggregate) -> None:
        """Fires the timers of these aggregates."""
        timers = Timers(
            self.log,
            self.writer,
            aggregates,
            clock=self.clock,
            lease=self.lease("timers"),
            actor=self.name,
        )
        self.tasks.start("timers", timers.run())

    def lease(self, work: str) -> PostgresLease:
        """The right to do a piece of work that one replica is enough for."""
        return PostgresLease(self.log.pool, work, f"{self.name}-{self.ids.uuid7()}")

    async def serve(self, service: Service, *, address: str, setting: str, domain: str) -> None:
        """Serves until the process is asked to stop."""
        async with serve(
            [service], address=address, setting=setting, domain=domain, health=[self.relay, *self.watched]
        ):
            await self.shutdown.wait()


@asynccontextmanager
async def open_node(
    settings: Settings, shutdown: Shutdown, *packages: str, name: str, log: str, database: str
) -> AsyncIterator[Node]:
    """The service ``name`` with its ``log`` in its ``database``; waits for servers that are not there yet."""
    logs.configure(settings.log_level, settings.log_format)
    client = await connect(settings.nats_url, name)
    try:
        async with (
            open_log(settings.postgres_url, database, log, *packages) as own,
            Tasks(shutdown.crash) as copying,
        ):
            twin = JetStreamTwin(client, log, replicas=settings.stream_replicas)
            ids = RandomIds()
            lease = PostgresLease(own.pool, "relay", f"{name}-{ids.uuid7()}")
            relay = Relay(own, twin, lease)
            copying.start("relay", relay.run())
            async with Writer(own, clock=SystemClock(), ids=ids, on_commit=relay.offer) as writer:
                async with Tasks(shutdown.crash) as tasks:
                    yield Node(name, settings, shutdown, client, own, writer, relay, tasks)
                await _drain(writer, relay)
    finally:
        await client.close()


async def _drain(writer: Writer, relay: Relay) -> None:
    try:
        async with asyncio.timeout(_DRAIN):
            await writer.drain()
    except TimeoutError:
        return  # the store is away: what waits is refused as UNAVAILABLE
    if relay.position is not None:
        await relay.drain(_DRAIN)
