"""Watches: how many changes a second reach how many watchers, the projector's beside the least program's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter

import grpc.aio

from proof.bench import budget
from proof.bench.load import Connection, Load
from proof.bench.report import Row
from proof.bench.servers import LEAST, Server
from shop.orders.v1 import order_service_pb2 as commands
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.queries.v1 import order_query_service_pb2 as orders_pb
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack.shop import Shop
from stack.topology import CUSTOMER_SVC
from tests.controls import wire

_METHOD = "shop.queries.v1.OrderQueryService/WatchOrder"
_WATCHERS = 100
"""Of each order, on a separate connection."""
_SECONDS = 60.0


async def rows(
    shop: Shop, servers: Sequence[Server], customer_id: str, orders: int, rounds: int
) -> list[Row]:
    """``orders``: each is changed once while a hundred watch it. The first server is the least program."""
    what = f"WatchOrder, {orders} × {_WATCHERS} watchers"
    reached = {
        server.name: Row(f"{what}: {server.name}", "changes × watchers/s", LEAST) for server in servers
    }
    spent = {
        server.name: Row(f"{what}, one change to one watcher: {server.name}", "µs", LEAST)
        for server in servers
    }
    for _ in range(rounds):
        for server in servers:
            rate, micros = await _fanned_out(shop, server, customer_id, orders)
            reached[server.name].add(rate, (reached[LEAST].values or [rate])[-1])
            spent[server.name].add(micros, (spent[LEAST].values or [micros])[-1])
    return [*reached.values(), *spent.values()]


async def _fanned_out(shop: Shop, server: Server, customer_id: str, orders: int) -> tuple[float, float]:
    """Changes that reached a watcher a second, and the processor microseconds of each."""
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(shop.orders))
        service = OrderServiceStub(channel)
        views = await stack.enter_async_context(grpc.aio.insecure_channel(shop.queries))
        await stack.enter_async_context(_pending(shop))
        request = commands.CreateOrderRequest(customer_id=customer_id, total=wire("1"))
        made = [await service.CreateOrder(request) for _ in range(orders)]
        await asyncio.gather(*(OrderQueryServiceStub(views).GetOrder(_seen(order)) for order in made))
        watching = [
            await stack.enter_async_context(
                Load(server.address, _METHOD, refusals=True).idle(_WATCHERS, _watch(order))
            )
            for order in made
        ]
        await _until_all(watching, first=True)
        before, start = budget.spent({"server": server.pid})["server"], perf_counter()
        cancels = [commands.CancelOrderRequest(order_id=order.order_id) for order in made]
        await asyncio.gather(*(service.CancelOrder(cancel) for cancel in cancels))
        await _until_all(watching, first=False)
        took = max(call.answered for connection in watching for call in connection.calls) - start
        spent = budget.spent({"server": server.pid})["server"] - before
        return orders * _WATCHERS / took, spent / (orders * _WATCHERS)


def _seen(order: commands.CreateOrderResponse) -> orders_pb.GetOrderRequest:
    return orders_pb.GetOrderRequest(order_id=order.order_id, consistency_token=order.consistency_token)


def _watch(order: commands.CreateOrderResponse) -> bytes:
    return orders_pb.WatchOrderRequest(order_id=order.order_id).SerializeToString()


async def _until_all(watching: Sequence[Connection], *, first: bool) -> None:
    """Until every watcher has its order as it was, or has heard of its change, which is the last one."""
    async with asyncio.timeout(_SECONDS):
        while not all(
            bool(call.reply) if first else bool(call.answered)
            for connection in watching
            for call in connection.calls
        ):
            await asyncio.sleep(0.005)


@asynccontextmanager
async def _pending(shop: Shop) -> AsyncIterator[None]:
    """Orders stay PENDING inside: nobody reserves their credit."""
    await shop.supervisor.pause(CUSTOMER_SVC.name)
    try:
        yield
    finally:
        shop.supervisor.resume(CUSTOMER_SVC.name)
