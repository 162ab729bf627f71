"""What the shop's clients make of a refusal."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, GetOrderResponse
from stack.clients import retried
from tests.kernel.edge import Edge, echo, serving
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
