"""What the shop's clients make of a refusal."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, GetOrderResponse
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack import clients
from stack.clients import retried
from tests import waiting
from tests.kernel.edge import Edge, echo, serving
from twinlog.console import services
from twinlog.dev import supervisor
from twinlog.model.errors import Overloaded
from twinlog.rpc import Context


async def test_an_overloaded_service_is_asked_again_when_it_says() -> None:
    asked: list[float] = []

    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) == 1:
            raise Overloaded(waiting=7)
        return await echo(request, context)

    async with serving(Edge(get)) as client:
        answer: GetOrderResponse = await retried(client.stub.GetOrder, GetOrderRequest(order_id="x"))
    assert answer.order.order_id == "x"
    first, second = asked
    assert second - first >= 1.0


async def test_a_request_that_is_too_large_is_not_sent_again() -> None:
    async with serving(Edge()) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await retried(client.stub.GetOrder, GetOrderRequest(order_id="x" * 2**20))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "options",
    [clients._OPTIONS, services._OPTIONS, supervisor._ASKED_SOON_AGAIN, waiting.RETRIED_SOON],
    ids=["clients", "console", "supervisor", "tests"],
)
async def test_a_service_that_is_slow_to_take_a_connection_is_not_taken_for_gone(
    options: Sequence[tuple[str, Any]],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:  # its system takes connections; nobody says anything
        async with grpc.aio.insecure_channel(f"127.0.0.1:{busy.getsockname()[1]}", options) as channel:
            stub: Any = OrderQueryServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await stub.GetOrder(GetOrderRequest(order_id="x"), timeout=1.0)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
