"""A shop that has seen everything, at rest: a copy of its tables is put back after each fault."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg
import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from projector.app import PACKAGE, VIEWS
from projector.reads import ROWS
from proof.auditor import Auditor, Report, audit, open_auditor
from proof.auditor.shop import DATABASES, LOGS, SHOWN_LOGS
from shop.customers.v1.customer_service_pb2 import ChangeCreditLimitRequest
from shop.orders.v1.order_service_pb2 import CancelOrderRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from shop.sagas.v1 import saga_service_pb2 as saga_pb
from stack.clients import retried
from stack.shop import Shop
from tests import servers
from tests.controls import MODES, new_id, wire
from tests.dead_letters.journal import dead_lettering
from tests.e2e.client import Client, connect
from tests.shops import running_shop
from tests.waiting import in_service
from twinlog import Metadata, Policies, PostgresViews, Projection, Recorded, Schema, StreamId, Writer
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.policies import PolicyConsumer
from twinlog.jetstream import connection as jetstream
from twinlog.testing.internals import (
    Appended,
    Batch,
    JetStreamTwin,
    NewEvent,
    Pool,
    PostgresLog,
    RandomIds,
    SystemClock,
    database_url,
    open_pool,
)
from twinlog.testing.internals import NatsClient as Nats

DATABASE_OF = {of.log: of.database for of in LOGS}


class Operated(NamedTuple):
    """Orders whose sagas an operator saw to."""

    skipped: str
    """Its reservation was skipped, and granted later."""
    skipped_in_vain: str
    """Its reservation was skipped, and refused later."""
    aborted: str


@dataclass
class World:
    """The servers with a clean shop on them, and ways to spoil it."""

    postgres_url: str
    nats_url: str
    nats: Nats
    pools: Mapping[str, Pool]
    """By database."""
    during: Sequence[Report]
    """Audits while the load ran."""
    operated: Operated
    _spoiled: set[str] = field(default_factory=set)

    async def audit(self, *, at_rest: bool = False) -> Report:
        return await Auditor(self.nats, self.pools, at_rest=at_rest).round()

    async def sql(self, database: str, statement: str, *arguments: Any) -> str:
        """Runs a statement as a superuser, past every trigger; gives its command tag."""
        self._spoiled.add(database)
        async with self.pools[database].acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL session_replication_role = replica")
            return str(await connection.execute(statement, *arguments))

    async def ask(self, database: str, query: str, *arguments: Any) -> Any:
        """The first value that a query gives."""
        return await self.pools[database].fetchval(query, *arguments)

    def log(self, name: str) -> PostgresLog:
        """One of the shop's logs."""
        return PostgresLog(self.pools[DATABASE_OF[name]], name)

    def projection(self, log: str) -> DeadLettering:
        """What keeps the projector's views of a log, to be driven by hand."""
        self._spoiled.add(DATABASE_OF["projector"])
        store = PostgresViews(self.log("projector"), PACKAGE, ROWS)
        return dead_lettering(Projection(f"projector.{log}", VIEWS[log], store, schema=Schema()), store.log)

    @asynccontextmanager
    async def policies(self, table: Policies, own: str) -> AsyncIterator[DeadLettering]:
        """What runs a policy table over the log that its service owns, to be driven by hand."""
        self._spoiled.add(DATABASE_OF[own])
        log = self.log(own)
        async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
            yield dead_lettering(PolicyConsumer(table, writer, log, Schema()), log)

    async def events(self, log: str) -> Sequence[Recorded]:
        """Every event of a log."""
        return await self.log(log).read(0, 100_000)

    async def find(self, log: str, type: type[Message]) -> Recorded:
        """The first event of a type."""
        return next(e for e in await self.events(log) if e.type == type.DESCRIPTOR.full_name)

    async def append(
        self,
        log: str,
        stream: StreamId,
        *messages: Message,
        key: str,
        metadata: Metadata = Metadata(actor="a fault"),
    ) -> None:
        """Appends what no decider decided, past every rule."""
        self._spoiled.add(DATABASE_OF[log])
        version = sum(event.stream == stream for event in await self.events(log))
        events = [
            NewEvent.of(stream, version + number, RandomIds().uuid7(), message, metadata, key)
            for number, message in enumerate(messages, 1)
        ]
        appended = await self.log(log).append(Batch(SystemClock().now(), {stream: version}, events))
        assert isinstance(appended, Appended)

    async def catch_up(self) -> None:
        """Has every checkpoint at the head of its log, as if all had been handled."""
        for log in SHOWN_LOGS:
            head = await self.log(log).head()
            for database in DATABASES:
                await self.sql(
                    database, "UPDATE checkpoints SET position = $1 WHERE consumer LIKE $2", head, f"%.{log}"
                )

    def twin(self, log: str) -> JetStreamTwin:
        """The twin of a log, to be spoiled."""
        self._spoiled.add(log)
        return JetStreamTwin(self.nats, log)

    async def restore(self) -> None:
        """The clean shop: puts back what was spoiled."""
        for database in self._spoiled & set(DATABASES):
            await _put_back(self.pools[database])
        for log in self._spoiled - set(DATABASES):
            twin = JetStreamTwin(self.nats, log)
            await twin.delete()
            await in_service(twin.create, 1)
            await twin.publish(await self.events(log))
        self._spoiled.clear()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Runs a shop under load, audits it meanwhile, stops it and keeps what it left."""
    async with servers.postgres_server() as postgres, servers.nats_server() as nats:
        during: list[Report] = []
        async with _shop(postgres.url, nats.url) as shop, connect(shop) as client:
            async with open_auditor(postgres.url, nats.url) as auditor:
                load = asyncio.create_task(_load(client))
                while not load.done():
                    during.append(await auditor.round())
                    if not during[-1].settled:  # it has seen the load, which goes on with the processors
                        await asyncio.wait([load], timeout=0.3)
                busy = await load
                async with client.without("customer_svc"):
                    operated = await _operate(client, busy)
                    during.append(await auditor.round())
            settled = await audit(postgres.url, nats.url, wait_seconds=240)
            assert settled.settled, settled.in_flight
        for database in DATABASES:
            await _keep(postgres.url, database)
        async with AsyncExitStack() as stack:
            pools = {
                name: await stack.enter_async_context(open_pool(database_url(postgres.url, name), size=2))
                for name in DATABASES
            }
            connection = await jetstream.connect(nats.url, "tests")
            stack.push_async_callback(connection.close)
            yield World(postgres.url, nats.url, connection, pools, during, operated)


@asynccontextmanager
async def _shop(postgres_url: str, nats_url: str) -> AsyncIterator[Shop]:
    with servers.folder() as path, pytest.MonkeyPatch.context() as environment:
        environment.setenv("POSTGRES_URL", postgres_url)
        environment.setenv("NATS_URL", nats_url)
        async with running_shop(path) as shop:
            yield shop


_AT_ONCE, _IN_EACH_WAY = 12, 42
_LIMITS = 100
"""Changes of a customer's credit limit: enough events for a snapshot. They concern nobody else, as orders do."""


async def _load(client: Client) -> str:
    """Orders of every kind in both modes: approved, rejected for every reason but time, cancelled early and late.

    No more than it takes: each audit of these tests reads all of it. Gives the customer who has most of them.
    """
    dice = random.Random(7)
    customers = [await client.customer("100") for _ in range(8)]
    busy = await client.customer("100000")

    async def one(number: int) -> None:
        created = await client.create(dice.choice([*customers, busy, busy]), "9.99", MODES[number % 2])
        cancel = CancelOrderRequest(order_id=created.order_id, request_id=new_id())
        if number % 7 == 0:
            await client.watch(created.order_id, created.consistency_token)
        if number % 3 == 0 or number % 7 == 0:
            try:
                await retried(client.orders.CancelOrder, cancel)
            except grpc.aio.AioRpcError as error:  # it was rejected before
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION

    async def limit(units: int) -> None:
        change = ChangeCreditLimitRequest(
            request_id=new_id(), customer_id=busy, credit_limit=wire(str(units))
        )
        await retried(client.customers.ChangeCreditLimit, change)

    for mode in MODES:
        await client.order(new_id(), "1", mode)
        await client.order(customers[0], "1", mode, "USD")
        await asyncio.gather(*(client.create(busy, "1", mode) for _ in range(_AT_ONCE)))
    await asyncio.gather(*(limit(100_000 + number) for number in range(1, _LIMITS)))
    await asyncio.gather(*(one(number) for number in range(_IN_EACH_WAY)))
    await client.limit(customers[1], "1")
    return busy


async def _operate(client: Client, customer: str) -> Operated:
    """An operator skips and aborts steps that customer_svc, which is down, does not answer."""
    created = [
        await client.create(customer, total, SAGA_MODE_ORCHESTRATION) for total in ("3", "1000000", "3")
    ]
    operated = Operated(*(order.order_id for order in created))
    for order in created:
        await client.happened(order.order_id, "ReserveCredit", token=order.consistency_token)
    of = {order_id: saga_pb.SagaSelection(order_id=order_id) for order_id in operated}
    for order_id in (operated.skipped, operated.skipped_in_vain):
        skip = saga_pb.SkipSagaStepRequest(selection=of[order_id], reason="settled by hand")
        assert (await client.sagas.SkipSagaStep(skip)).applied == 1
    retry = saga_pb.RetrySagasRequest(selection=of[operated.aborted], reason="it may be back")
    assert (await client.sagas.RetrySagas(retry)).applied == 1
    abort = saga_pb.AbortSagasRequest(selection=of[operated.aborted], reason="it is not")
    assert (await client.sagas.AbortSagas(abort)).applied == 1
    return operated


_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'leases'"


async def _keep(server_url: str, database: str) -> None:
    """Puts a copy of every table aside."""
    connection = await asyncpg.connect(database_url(server_url, database))
    try:
        await connection.execute("CREATE SCHEMA clean")
        for table in await connection.fetch(_TABLES):
            await connection.execute(f"CREATE TABLE clean.{table[0]} AS TABLE public.{table[0]}")
    finally:
        await connection.close()


async def _put_back(pool: Pool) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        for table in await connection.fetch(_TABLES):
            await connection.execute(f"DELETE FROM {table[0]}")
            await connection.execute(f"INSERT INTO {table[0]} OVERRIDING SYSTEM VALUE TABLE clean.{table[0]}")
