"""What goes around gRPC methods: once for each at the start, unary and streaming."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    WatchOrderRequest,
    WatchOrderResponse,
)
from tests.kernel.edge import NAME, PATIENCE, Edge, serving
from twinlog import FailedPrecondition
from twinlog.rpc import Behavior, Context, Method, Middleware


class Closed(FailedPrecondition):
    """The shop is closed."""

    reason = "CLOSED"


def noting(who: str, notes: list[str]) -> Middleware:
    """Notes when a method begins and how it ends."""

    def put_around(method: Method, behavior: Behavior) -> Behavior:
        short = method.name.removeprefix(f"{NAME}/")
        notes.append(f"{who} around {short}")

        async def unary(request: Any, context: Context) -> Any:
            notes.append(f"{who} {short}")
            try:
                return await behavior(request, context)
            except Closed:
                notes.append(f"{who} {short} failed")
                raise

        async def streaming(request: Any, context: Context) -> AsyncIterator[Any]:
            notes.append(f"{who} {short}")
            async for response in behavior(request, context):
                notes.append(f"{who} {response.order.order_id}")
                yield response

        return streaming if method.response_streaming else unary

    return put_around


async def test_the_first_is_the_outermost_and_each_goes_around_a_method_once() -> None:
    notes: list[str] = []
    async with serving(Edge(), middleware=[noting("a", notes), noting("b", notes)]) as client:
        at_start = sorted(notes)
        notes.clear()
        assert await client.get("x") == "x"
        assert [r.order.order_id async for r in client.stub.WatchOrder(WatchOrderRequest())] == [
            "0",
            "1",
            "2",
        ]
    methods = ("GetOrder", "GetOrderTimeline", "ListOrders", "WatchOrder", "WatchOrders")
    assert at_start == [f"{who} around {method}" for who in "ab" for method in methods]
    assert notes[:2] == ["a GetOrder", "b GetOrder"]
    assert notes[2:] == [
        "a WatchOrder",
        "b WatchOrder",
        *(f"{who} {number}" for number in "012" for who in "ba"),
    ]


async def test_it_sees_the_error_that_the_client_gets() -> None:
    notes: list[str] = []

    async def refuse(_request: GetOrderRequest, _context: Context) -> GetOrderResponse:
        raise Closed

    async with serving(Edge(refuse), middleware=[noting("a", notes)]) as client:
        assert (await client.refusal()).code() == grpc.StatusCode.FAILED_PRECONDITION
    assert notes[-1] == "a GetOrder failed"


async def test_it_can_refuse_a_call_itself() -> None:
    def closed(method: Method, behavior: Behavior) -> Behavior:
        async def unary(_request: Any, _context: Context) -> Any:
            raise Closed

        async def streaming(_request: Any, _context: Context) -> AsyncIterator[WatchOrderResponse]:
            if method.response_streaming:
                raise Closed
            yield WatchOrderResponse()

        return streaming if method.response_streaming else unary

    async with serving(Edge(), middleware=[closed]) as client:
        assert (await client.refusal()).details() == str(Closed())
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.stub.WatchOrder(WatchOrderRequest(), timeout=PATIENCE).read()
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
