"""A service whose methods each test writes, on a real server, and what a client sees of its errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc.aio
import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from shop.queries.v1 import order_query_service_pb2_grpc as generated
from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    GetOrderTimelineRequest,
    GetOrderTimelineResponse,
    ListOrdersRequest,
    ListOrdersResponse,
    Order,
    WatchOrderRequest,
    WatchOrderResponse,
    WatchOrdersRequest,
    WatchOrdersResponse,
)
from twinlog.rpc import Context, Limits, Middleware, Watched, serve
from twinlog.rpc.errors import DETAILS_KEY

LIMITS = Limits()
PATIENCE = 60.0
"""Seconds that a client waits for an answer, where it is not about the deadline."""
NAME = "shop.queries.v1.OrderQueryService"
Detail = TypeVar("Detail", bound=Message)
Get = Callable[[GetOrderRequest, Context], Awaitable[GetOrderResponse]]
Watch = Callable[[WatchOrderRequest, Context], AsyncIterator[WatchOrderResponse]]


async def echo(request: GetOrderRequest, context: Context) -> GetOrderResponse:
    """Answers with the order id that it got."""
    return GetOrderResponse(order=Order(order_id=request.order_id))


async def count(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
    """Answers 0, 1, 2."""
    for number in range(3):
        yield WatchOrderResponse(order=Order(order_id=str(number)))


class Edge(generated.OrderQueryServiceServicer):
    """The servicer."""

    def __init__(self, get: Get = echo, watch: Watch = count) -> None:
        self._get = get
        self._watch = watch

    async def GetOrder(self, request: GetOrderRequest, context: Context) -> GetOrderResponse:
        return await self._get(request, context)

    async def WatchOrder(
        self, request: WatchOrderRequest, context: Context
    ) -> AsyncIterator[WatchOrderResponse]:
        async for response in self._watch(request, context):
            yield response

    def WatchOrders(
        self, request: WatchOrdersRequest, context: Context
    ) -> AsyncIterator[WatchOrdersResponse]:
        raise NotImplementedError

    async def ListOrders(self, request: ListOrdersRequest, context: Context) -> ListOrdersResponse:
        raise NotImplementedError

    async def GetOrderTimeline(
        self, request: GetOrderTimelineRequest, context: Context
    ) -> GetOrderTimelineResponse:
        raise NotImplementedError


@dataclass
class Client:
    """A client of the service."""

    address: str
    stub: Any
    channel: grpc.aio.Channel
    stop: Callable[[], Awaitable[None]]
    """Stops the server, gracefully."""

    async def get(
        self, order_id: str = "x", timeout: float = PATIENCE, metadata: Mapping[str, str] | None = None
    ) -> str:
        """The order id that the service answered with."""
        sent = tuple((metadata or {}).items())
        response = await self.stub.GetOrder(
            GetOrderRequest(order_id=order_id), timeout=timeout, metadata=sent
        )
        answered: str = response.order.order_id
        return answered

    async def refusal(self, order_id: str = "x", timeout: float = PATIENCE) -> grpc.aio.AioRpcError:
        """The error that the service answered with."""
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await self.get(order_id, timeout)
        return refused.value


@asynccontextmanager
async def serving(
    edge: Edge,
    *,
    limits: Limits = LIMITS,
    health: Sequence[Watched] = (),
    signals: Mapping[str, Watched] = {},
    middleware: Sequence[Middleware] = (),
) -> AsyncIterator[Client]:
    """A client of ``edge`` on a server of its own."""
    service = (edge, generated.add_OrderQueryServiceServicer_to_server, NAME)
    async with AsyncExitStack() as host:
        server = await host.enter_async_context(
            serve(
                [service],
                domain="shop",
                limits=limits,
                health=health,
                signals=signals,
                middleware=middleware,
            )
        )
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub = generated.OrderQueryServiceStub(channel)
            yield Client(server.address, stub, channel, host.aclose)


def rich(error: grpc.aio.AioRpcError) -> Status:
    """The google.rpc.Status of an error."""
    [status] = [
        value for key, value in error.trailing_metadata() if key == DETAILS_KEY and isinstance(value, bytes)
    ]
    return Status.FromString(status)


def detail(status: Status, kind: type[Detail]) -> Detail:
    """The one detail of a kind."""
    unpacked = kind()
    [_] = [packed for packed in status.details if packed.Unpack(unpacked)]
    return unpacked


async def forever() -> None:
    """Waits until it is cancelled."""
    await asyncio.Event().wait()
