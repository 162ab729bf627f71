"""The shop's gRPC clients, as any program of its users would write them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from shop.customers.v1.customer_service_pb2_grpc import CustomerServiceStub
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.queries.v1.customer_query_service_pb2_grpc import CustomerQueryServiceStub
from shop.queries.v1.order_query_service_pb2 import ListOrdersRequest, Order
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from shop.sagas.v1.saga_service_pb2_grpc import SagaServiceStub

Response = TypeVar("Response", covariant=True)

_OPTIONS = [
    # A service that was killed is back within a second; gRPC's own backoff would take much longer. A least backoff
    # would also be how long a connection may take, and a service that is slow to take one would be away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
# gRPC itself cancels what reaches a service just as that closes.
_TRANSIENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_DETAILS_KEY = "grpc-status-details-bin"
_TRY_SECONDS = 10.0
_GIVE_UP_SECONDS = 300.0
_FIRST_DELAY_SECONDS, _LONGEST_DELAY_SECONDS = 0.05, 1.0


class Unexpected(Exception):
    """The shop did something wrong; the message says what."""


class Addresses(Protocol):
    """Where the services are."""

    @property
    def orders(self) -> str: ...
    @property
    def customers(self) -> str: ...
    @property
    def sagas(self) -> str: ...
    @property
    def queries(self) -> str: ...


@dataclass(frozen=True)
class Clients:
    """A stub for each service."""

    orders: OrderServiceStub
    customers: CustomerServiceStub
    sagas: SagaServiceStub
    order_queries: OrderQueryServiceStub
    customer_queries: CustomerQueryServiceStub


@asynccontextmanager
async def connect(shop: Addresses) -> AsyncIterator[Clients]:
    """Clients for the block, with one connection per service."""
    async with AsyncExitStack() as stack:

        async def channel(address: str) -> grpc.aio.Channel:
            # With gRPC's global pool, all clients of this process would share one connection.
            options = [*_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
            return await stack.enter_async_context(grpc.aio.insecure_channel(address, options))

        orders, customers, sagas, queries = [
            await channel(address) for address in (shop.orders, shop.customers, shop.sagas, shop.queries)
        ]
        yield Clients(
            OrderServiceStub(orders),
            CustomerServiceStub(customers),
            SagaServiceStub(sagas),
            OrderQueryServiceStub(queries),
            CustomerQueryServiceStub(queries),
        )


class Call(Protocol[Response]):
    """A unary method of a stub."""

    def __call__(self, request: Any, /, *, timeout: float | None = None) -> Awaitable[Response]: ...


async def retried(call: Call[Response], request: Any) -> Response:
    """The answer to a call that is safe to repeat: a query, or a command with a request_id.

    Repeats it while the service is away, does not answer, or has too much to do; then at the earliest when the service
    says, give or take. Raises the last error after five minutes of that.
    """
    delay, give_up = _FIRST_DELAY_SECONDS, time.monotonic() + _GIVE_UP_SECONDS
    while True:
        try:
            return await call(request, timeout=_TRY_SECONDS)
        except grpc.aio.AioRpcError as error:
            asked = retry_seconds(error)
            if (asked is None and error.code() not in _TRANSIENT) or time.monotonic() > give_up:
                raise
        await asyncio.sleep(max(delay, (asked or 0.0) * random.uniform(1.0, 1.5)))
        delay = min(delay * 2, _LONGEST_DELAY_SECONDS)


def retry_seconds(error: grpc.aio.AioRpcError) -> float | None:
    """How long the service asks to wait before the same call is made again; None where it does not.

    That, not the code, says whether RESOURCE_EXHAUSTED passes: a request that is too large never does.
    """
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            for packed in Status.FromString(bytes(value)).details:
                retry = RetryInfo()
                if packed.Unpack(retry):
                    return float(retry.retry_delay.ToMilliseconds()) / 1e3
    return None


async def orders_of(clients: Clients, customer_id: str) -> list[Order]:
    """All orders of a customer, as the view has them."""
    orders: list[Order] = []
    request = ListOrdersRequest(customer_id=customer_id, page_size=1000)
    while True:
        page = await retried(clients.order_queries.ListOrders, request)
        orders += page.orders
        if not page.next_page_token:
            return orders
        request.page_token = page.next_page_token
