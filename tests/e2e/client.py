"""A client of the whole shop, and a look behind its back into the logs."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import asyncpg
import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from shop.customers.v1 import customer_service_pb2 as customer_pb
from shop.orders.v1 import order_service_pb2 as order_pb
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION, SAGA_MODE_UNSPECIFIED
from shop.queries.v1 import customer_query_service_pb2 as customer_query_pb
from shop.queries.v1 import order_query_service_pb2 as order_query_pb
from shop.sagas.v1 import saga_service_pb2 as saga_pb
from stack import clients
from stack.clients import Clients
from stack.shop import Shop
from stack.topology import ROOT
from tests.controls import Mode, new_id, wire
from tests.kernel.edge import rich
from tests.servers import folder
from tests.waiting import until
from twinlog.dev import Program, Supervisor, free_port
from twinlog.testing.internals import database_url

PATIENCE = 60.0
"""Seconds after which a call of a test is given up."""
DATABASES = {"orders": "shop_orders", "customers": "shop_customers", "sagas": "shop_sagas"}
"""Where each log is."""
_CHOREOGRAPHED = ("OrderCreated", "CreditReserved", "OrderApproved")
_ORCHESTRATED = (
    *_CHOREOGRAPHED,
    *("SagaStarted", "ReserveCredit", "SagaStepSucceeded", "ApproveOrder", "SagaCompleted"),
)
"""The events of an order that is approved."""


paused: set[str] = set()
"""The services that stand still by the will of a test, by name."""


class Refusal(NamedTuple):
    """What a client gets to know of an error."""

    code: grpc.StatusCode
    reason: str
    """Of the ErrorInfo; empty where gRPC itself refused."""
    fields: set[str]
    """Of the BadRequest."""
    facts: Mapping[str, str]


async def refusal(call: Awaitable[Any]) -> Refusal:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refusal_of(refused.value)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    if not error.trailing_metadata():
        return Refusal(error.code(), "", set(), {})
    info, bad, status = ErrorInfo(), BadRequest(), rich(error)
    for detail in status.details:
        assert detail.Unpack(info) or detail.Unpack(bad) or "RetryInfo" in detail.type_url
    assert info.domain == "shop"
    fields = {violation.field for violation in bad.field_violations}
    return Refusal(error.code(), info.reason, fields, dict(info.metadata))


@dataclass(frozen=True)
class Client(Clients):
    """Stubs of every service, and what tests do with them all the time.

    As any client does, it asks again where a service that is busy, or away for a moment, says so.
    """

    shop: Shop

    async def customer(self, limit: str = "15", currency: str = "EUR") -> str:
        """A new customer."""
        credit = wire(limit, currency)
        request = customer_pb.CreateCustomerRequest(request_id=new_id(), name="Ada", credit_limit=credit)
        created = await clients.retried(self.customers.CreateCustomer, request)
        return cast(str, created.customer_id)

    async def limit(self, customer_id: str, limit: str) -> str:
        """Changes the customer's limit; gives the token of the change."""
        request = customer_pb.ChangeCreditLimitRequest(
            request_id=new_id(), customer_id=customer_id, credit_limit=wire(limit)
        )
        changed = await clients.retried(self.customers.ChangeCreditLimit, request)
        return cast(str, changed.consistency_token)

    async def create(
        self,
        customer_id: str,
        total: str = "12.34",
        mode: Mode = SAGA_MODE_UNSPECIFIED,
        currency: str = "EUR",
    ) -> order_pb.CreateOrderResponse:
        """A new order, PENDING."""
        request = order_pb.CreateOrderRequest(
            request_id=new_id(), customer_id=customer_id, total=wire(total, currency), saga_mode=mode
        )
        return await clients.retried(self.orders.CreateOrder, request)

    async def order(
        self,
        customer_id: str,
        total: str = "12.34",
        mode: Mode = SAGA_MODE_UNSPECIFIED,
        currency: str = "EUR",
    ) -> order_query_pb.Order:
        """A new order as it is when its saga has an answer."""
        created = await self.create(customer_id, total, mode, currency)
        return (await self.watch(created.order_id, created.consistency_token))[-1]

    async def watch(self, order_id: str, token: str = "") -> list[order_query_pb.Order]:
        """The order at each change until it is approved, rejected or cancelled."""
        request = order_query_pb.WatchOrderRequest(order_id=order_id, consistency_token=token)
        seen: list[order_query_pb.Order] = []

        async def ended() -> bool:
            try:
                async for told in self.order_queries.WatchOrder(request, timeout=PATIENCE):
                    if not seen or told.order.version > seen[-1].version:
                        seen.append(told.order)
            except grpc.aio.AioRpcError as error:
                if clients.retry_seconds(error) is None:
                    raise
                return False
            return True

        await until(ended)
        return seen

    async def cancel(self, order_id: str) -> order_pb.CancelOrderResponse:
        """Cancels an order."""
        request = order_pb.CancelOrderRequest(request_id=new_id(), order_id=order_id)
        return await clients.retried(self.orders.CancelOrder, request)

    async def get(self, order_id: str, token: str = "") -> order_query_pb.Order:
        """The order as the view has it."""
        request = order_query_pb.GetOrderRequest(order_id=order_id, consistency_token=token)
        found: order_query_pb.GetOrderResponse = await clients.retried(self.order_queries.GetOrder, request)
        return found.order

    async def get_customer(self, customer_id: str, token: str = "") -> customer_query_pb.Customer:
        """The customer as the view has it."""
        request = customer_query_pb.GetCustomerRequest(customer_id=customer_id, consistency_token=token)
        asked = self.customer_queries.GetCustomer
        found: customer_query_pb.GetCustomerResponse = await clients.retried(asked, request)
        return found.customer

    async def timeline(self, order_id: str, token: str = "") -> list[order_query_pb.TimelineEntry]:
        """The events of the order's saga."""
        request = order_query_pb.GetOrderTimelineRequest(order_id=order_id, consistency_token=token)
        return list((await clients.retried(self.order_queries.GetOrderTimeline, request)).entries)

    async def saga(self, order_id: str) -> saga_pb.Saga:
        """The saga of an orchestrated order."""
        request = saga_pb.GetSagaRequest(order_id=order_id)
        found: saga_pb.GetSagaResponse = await clients.retried(self.sagas.GetSaga, request)
        return found.saga

    async def reserves(self, customer_id: str, amount: str) -> None:
        """Returns when the view shows exactly this much reserved for the customer."""

        async def reserved() -> bool:
            return bool((await self.get_customer(customer_id)).reserved == wire(amount))

        await until(lambda: _seen(reserved))

    async def happened(self, order_id: str, *types: str, token: str = "") -> None:
        """Returns when the timeline of the order has events of these types, by their short names."""

        async def all_there() -> bool:
            seen = {entry.type.rpartition(".")[2] for entry in await self.timeline(order_id, token)}
            return seen.issuperset(types)

        await until(lambda: _seen(all_there))

    async def approved(self, order_id: str, mode: Mode) -> list[order_query_pb.TimelineEntry]:
        """The events of an order, as soon as all of those of one that is approved are there.

        The view reads each log at a pace of its own: that the last event is there does not say that the others are.
        """
        orchestrated = mode == SAGA_MODE_ORCHESTRATION
        await self.happened(order_id, *(_ORCHESTRATED if orchestrated else _CHOREOGRAPHED))
        return await self.timeline(order_id)

    async def count(self, log: str, condition: str, *values: object) -> int:
        """How many events of a log there are, by a condition in SQL."""
        found = await self.fetch(log, f"SELECT count(*) FROM events WHERE {condition}", *values)
        return cast(int, found)

    async def head(self, log: str) -> int:
        """The position of a log's last event."""
        return cast(int, await self.fetch(log, "SELECT position FROM log_head"))

    async def fetch(self, log: str, query: str, *values: object) -> Any:
        """One value from the database of a log."""
        async with self.database(log) as connection:
            return await connection.fetchval(query, *values)

    @asynccontextmanager
    async def database(self, log: str) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the database of a log."""
        connection = await asyncpg.connect(database_url(self.shop.postgres_url, DATABASES[log]))
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def without(self, module: str) -> AsyncIterator[None]:
        """For the block, a service stands still."""
        await self.shop.supervisor.pause(module)
        paused.add(module)
        try:
            yield
        finally:
            paused.discard(module)
            self.shop.supervisor.resume(module)

    async def kill(self, module: str) -> None:
        """kill -9; returns when the service is up again."""
        old = self.shop.supervisor.pid(module)
        self.shop.supervisor.signal(module, signal.SIGKILL)
        await until(lambda: self.shop.supervisor.pid(module) != old)
        await self.shop.supervisor.ready(module)

    @asynccontextmanager
    async def held_up(self, log: str) -> AsyncIterator[None]:
        """For the block, nothing can be appended to a log: appends that are begun wait."""
        async with self.database(log) as connection, connection.transaction():
            await connection.execute("SELECT FROM log_head FOR UPDATE")
            yield


async def too_late(ask: Callable[[float], Awaitable[Any]]) -> Refusal:
    """What a call is refused with that waits in vain, for as many seconds as it is given.

    A service answers within nine tenths of that. On a machine that stands still for the last tenth the client gives up
    before; it asks again then, and gives more.
    """
    refused = await refusal(ask(1.0))
    for seconds in (10.0, 100.0):
        if refused.code is grpc.StatusCode.DEADLINE_EXCEEDED and not refused.reason:
            refused = await refusal(ask(seconds))
    return refused


@asynccontextmanager
async def hurried(
    shop: Shop, say: Callable[[str], None] = lambda _line: None, seconds: int = 1
) -> AsyncIterator[str]:
    """The address of a second order_svc over the same log, whose orders wait so many seconds for their credit."""
    address = f"127.0.0.1:{free_port()}"
    env = {
        "POSTGRES_URL": shop.postgres_url,
        "NATS_URL": shop.nats_url,
        "ORDER_DEADLINE_SECONDS": str(seconds),
    }
    service = Program("order_svc", "ORDERS_ADDRESS", address)
    with folder() as path:
        async with Supervisor([service], env, say, root=ROOT, folder=path):
            yield address


@asynccontextmanager
async def connect(shop: Shop) -> AsyncIterator[Client]:
    """A client with a connection to each service."""
    async with clients.connect(shop) as stubs:
        yield Client(**vars(stubs), shop=shop)


async def _seen(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Whether a condition holds; it does not while the view has not read of what it asks for."""
    try:
        return await condition()
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
