"""Calls as the metrics tell them, on a real gRPC server: how they end, how long they take, and who is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    WatchOrderRequest,
    WatchOrderResponse,
)
from shop.queries.v1.order_query_service_pb2_grpc import (
    OrderQueryServiceServicer,
    OrderQueryServiceStub,
    add_OrderQueryServiceServicer_to_server,
)
from tests.observe.scraping import Scrape, values_of
from tests.waiting import until
from twinlog import FailedPrecondition
from twinlog.model.errors import Overloaded
from twinlog.observe.metrics.commands import Commands
from twinlog.rpc import Limits, Method, serve
from twinlog.rpc.streams import StreamLimits

NAME = "shop.queries.v1.OrderQueryService"
GET, WATCH = f"{NAME}/GetOrder", f"{NAME}/WatchOrder"
_CALLS = "twinlog_rpc_calls_total"


class Closed(FailedPrecondition):
    """The shop is closed."""

    reason = "CLOSED"


class Edge(OrderQueryServiceServicer):  # type: ignore[misc, unused-ignore]
    """Does what the order's id says."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def GetOrder(self, request: Any, context: Any) -> Any:
        match request.order_id:
            case "closed":
                raise Closed
            case "broken":
                raise ZeroDivisionError
            case "too much":
                raise Overloaded(waiting=1)
            case "slow":
                self.waiting.set()
                await asyncio.sleep(3600)
        return GetOrderResponse()

    async def WatchOrder(self, request: Any, context: Any) -> AsyncIterator[Any]:
        yield WatchOrderResponse()
        if request.order_id == "slow":
            await asyncio.sleep(3600)


def _edge() -> Any:
    edge: Any = Edge
    return edge()


class Served:
    """A server whose calls are counted."""

    def __init__(self, **limits: Any) -> None:
        self.commands = Commands()
        self.edge: Any = _edge()
        self._limits = Limits(**limits)

    async def __aenter__(self) -> Served:
        registration = (self.edge, add_OrderQueryServiceServicer_to_server, NAME)
        self._serving = serve(
            [registration],
            domain="shop",
            limits=self._limits,
            middleware=[self.commands.middleware],
            on_refused=self.commands.refused,
        )
        server = await self._serving.__aenter__()
        self.channel = grpc.aio.insecure_channel(server.address)
        self.stub: Any = OrderQueryServiceStub(self.channel)
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.channel.close()
        await self._serving.__aexit__(*exc)

    async def get(self, order_id: str, **how: Any) -> grpc.StatusCode:
        """How a call ends."""
        try:
            await self.stub.GetOrder(GetOrderRequest(order_id=order_id), **how)
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def told(self) -> Scrape:
        return await values_of(self.commands)


async def test_calls_are_counted_by_how_they_end() -> None:
    async with Served() as served:
        for order_id in ("fine", "fine", "closed", "broken"):
            await served.get(order_id)
        told = await served.told()
    reasons = {
        reason: told.value(_CALLS, method=GET, reason=reason) for reason in ("OK", "CLOSED", "INTERNAL")
    }
    assert reasons == {"OK": 2, "CLOSED": 1, "INTERNAL": 1}
    assert told.value("twinlog_rpc_call_duration_seconds_count", method=GET) == 4


async def test_a_call_that_its_client_gives_up_is_cancelled() -> None:
    async with Served() as served:
        call = served.stub.GetOrder(GetOrderRequest(order_id="slow"))
        waiting = asyncio.ensure_future(call.code())
        await served.edge.waiting.wait()
        call.cancel()
        assert await waiting is grpc.StatusCode.CANCELLED
        await until(lambda: "CANCELLED" in served.commands._failed[GET].counts)
        assert (await served.told()).value(_CALLS, method=GET, reason="CANCELLED") == 1


async def test_what_is_refused_at_the_door_is_counted_too() -> None:
    async with Served() as served:
        for _ in range(3):  # the first one comes to the method; the next are refused by its gate
            assert await served.get("too much") is grpc.StatusCode.RESOURCE_EXHAUSTED
        told = await served.told()
    assert told.value(_CALLS, method=GET, reason="OVERLOADED") == 3
    assert told.value("twinlog_rpc_call_duration_seconds_count", method=GET) < 4


async def test_one_call_too_many_is_counted() -> None:
    async with Served(concurrent_calls=1) as served:
        first = asyncio.ensure_future(served.get("slow", timeout=60))
        await served.edge.waiting.wait()
        assert await served.get("fine") is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await served.told()).value(_CALLS, method=GET, reason="TOO_MANY_CALLS") == 1
        first.cancel()


async def test_watchers_are_counted_while_they_watch() -> None:
    async with Served(streams=StreamLimits(most=1)) as served:
        watching = served.stub.WatchOrder(WatchOrderRequest(order_id="slow"))
        await watching.read()
        assert (await served.told()).value("twinlog_rpc_open_streams", method=WATCH) == 1
        with pytest.raises(grpc.aio.AioRpcError):
            await served.stub.WatchOrder(WatchOrderRequest(order_id="fine")).read()
        watching.cancel()
        await until(lambda: served.commands._open[WATCH] == 0)
        told = await served.told()
    assert told.value(_CALLS, method=WATCH, reason="TOO_MANY_STREAMS") == 1
    assert told.value(_CALLS, method=WATCH, reason="CANCELLED") == 1
    assert told.value(_CALLS, method=WATCH, reason="OK") == 0


async def test_bytes_that_are_no_request_are_counted() -> None:
    async with Served() as served:
        call = served.channel.unary_unary(f"/{GET}")
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"\xff\xff\xff")
        assert (await served.told()).value(_CALLS, method=GET, reason="INVALID_ARGUMENT") == 1


async def test_others_choose_words_and_no_number_of_them_makes_more_than_a_hundred_series() -> None:
    commands = Commands()

    async def nothing(_request: Any, _context: Any) -> None:
        return None

    commands.middleware(Method(GET, False), nothing)
    for number in range(1_000):
        commands.refused(GET, f"REASON_{number}")
        commands.refused(f"unknown/{number}", "OVERLOADED")
    told = await values_of(commands)
    series = [labels for name, labels in told.samples if name == _CALLS]
    assert len(series) <= 102
    assert told.sum(_CALLS, method=GET) == 1_000
