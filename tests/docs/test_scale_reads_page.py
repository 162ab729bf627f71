"""docs/how-to/scale-reads.md: its channel takes turns, and leaves out who is gone or hangs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import grpc.aio

from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, GetOrderResponse, Order
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack.topology import ROOT
from tests.docs.test_domain_pages import module
from tests.kernel.edge import Edge, Get, serving
from tests.programs import program
from tests.waiting import GOING_AWAY, until
from twinlog.rpc import Context

FROZEN = """
import asyncio
import grpc.aio
from shop.queries.v1.order_query_service_pb2 import GetOrderResponse, Order

async def serve():
    async def get(_request, _context):
        return GetOrderResponse(order=Order(order_id="frozen")).SerializeToString()

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(get)
    name = "shop.queries.v1.OrderQueryService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"GetOrder": method})])
    print("listens on", server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()

asyncio.run(serve())
"""
"""A server of its own process, which can be stopped."""


def named(name: str) -> Get:
    async def get(_request: GetOrderRequest, _context: Context) -> GetOrderResponse:
        return GetOrderResponse(order=Order(order_id=name))

    return get


async def test_its_channel_takes_turns_and_leaves_out_who_is_gone() -> None:
    connect: Callable[..., grpc.aio.Channel] = module("scale-reads").channel
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


async def test_it_leaves_out_who_hangs_and_takes_it_back() -> None:
    connect = module("scale-reads").channel
    async with (
        serving(Edge(named("a"))) as a,
        program(sys.executable, "-c", FROZEN, env=os.environ, cwd=ROOT) as frozen,
    ):
        await frozen.says("listens on")
        [port] = [line.split()[-1] for line in frozen.lines if "listens on" in line]
        async with connect([a.address, f"127.0.0.1:{port}"], 1.0) as channel:
            stub, heard = OrderQueryServiceStub(channel), list[str]()

            async def ask() -> None:
                try:
                    answer = await stub.GetOrder(GetOrderRequest(), timeout=60)
                    heard.append(answer.order.order_id)
                except grpc.aio.AioRpcError as error:
                    assert error.code() in GOING_AWAY, "long before its deadline"

            async def only_a() -> bool:
                await ask()
                return heard[-5:] == ["a"] * 5

            async def both() -> bool:
                await ask()
                return {*heard[-2:]} == {"a", "frozen"}

            await until(both)
            frozen.process.send_signal(signal.SIGSTOP)
            await until(only_a)
            frozen.process.send_signal(signal.SIGCONT)
            await until(both)
