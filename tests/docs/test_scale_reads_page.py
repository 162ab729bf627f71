"""docs/how-to/scale-reads.md: its channel takes turns, and leaves out who is gone."""

from __future__ import annotations

from collections.abc import Callable

import grpc.aio

from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, GetOrderResponse, Order
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from tests.docs.test_domain_pages import module
from tests.kernel.edge import Edge, Get, serving
from tests.waiting import GOING_AWAY, until
from twinlog.rpc import Context


def named(name: str) -> Get:
    async def get(_request: GetOrderRequest, _context: Context) -> GetOrderResponse:
        return GetOrderResponse(order=Order(order_id=name))

    return get


async def test_its_channel_takes_turns_and_leaves_out_who_is_gone() -> None:
    connect: Callable[[list[str]], grpc.aio.Channel] = module("scale-reads").channel
    async with (
        serving(Edge(named("a"))) as a,
        serving(Edge(named("b"))) as b,
        connect([a.address, b.address]) as channel,
    ):
        stub, heard = OrderQueryServiceStub(channel), list[str]()

        async def both() -> bool:
            answer = await stub.GetOrder(GetOrderRequest(), timeout=60, wait_for_ready=True)
            heard.append(answer.order.order_id)
            return set(heard[-2:]) == {"a", "b"}

        await until(both)
        await a.stop()
        heard.clear()

        async def three_of_the_other() -> bool:
            try:
                await both()
            except grpc.aio.AioRpcError as error:  # on its way while the server stopped
                assert error.code() in GOING_AWAY
            return heard[-3:] == ["b"] * 3

        await until(three_of_the_other)
