"""The load generator speaks real gRPC: held against the project's own host."""

from __future__ import annotations

from itertools import pairwise

import pytest

from proof.bench import apart, clients
from proof.bench.load import Load, Refused, Spread
from shop.orders.v1 import order_service_pb2 as pb
from shop.orders.v1.order_service_pb2_grpc import OrderServiceServicer, add_OrderServiceServicer_to_server
from twinlog import NotFound
from twinlog.dev import free_port
from twinlog.rpc import Context, serve

NAME = "shop.orders.v1.OrderService"


class Echo(OrderServiceServicer):
    """Gives every order the id of its request, and refuses one without."""

    async def CreateOrder(self, request: pb.CreateOrderRequest, _context: Context) -> pb.CreateOrderResponse:
        if not request.request_id:
            raise NotFound("nothing")
        return pb.CreateOrderResponse(order_id=request.request_id)

    CancelOrder = SetSagaMode = GetSagaMode = None  # type: ignore[assignment]


def message(request_id: str) -> bytes:
    return pb.CreateOrderRequest(request_id=request_id).SerializeToString()


async def run(messages: list[bytes], rate: float = 0.0) -> list[str]:
    """The order ids that come back; all at once, or at a rate."""
    async with serve([(Echo(), add_OrderServiceServicer_to_server, NAME)], domain="test") as server:
        load = Load(server.address, f"{NAME}/CreateOrder")
        calls = await (load.open(messages, rate) if rate else load.closed(messages, 64))
        assert all(call.answered >= call.due for call in calls)
        return [pb.CreateOrderResponse.FromString(call.reply).order_id for call in calls]


async def test_gets_the_answer_of_each_call() -> None:
    ids = [f"order-{number}" for number in range(500)]
    assert await run([message(id) for id in ids]) == ids


async def test_gets_past_the_first_flow_control_window() -> None:
    ids = [f"{number:02}" + "x" * 10_000 for number in range(20)]
    assert await run([message(id) for id in ids]) == ids


async def test_keeps_a_rate_and_measures_from_the_time_a_call_was_due() -> None:
    async with serve([(Echo(), add_OrderServiceServicer_to_server, NAME)], domain="test") as server:
        load = Load(server.address, f"{NAME}/CreateOrder")
        calls = await load.open([message("a")] * 50, 500.0)
    gaps = [after.due - before.due for before, after in pairwise(calls)]
    assert gaps == pytest.approx([1 / 500] * 49)


async def test_an_error_ends_the_run() -> None:
    with pytest.raises(Refused, match="error"):
        await run([message("a"), message("")])


async def test_spreads_calls_over_servers_and_gives_every_answer() -> None:
    ids = [f"order-{number}" for number in range(101)]
    messages = [message(id) for id in ids]
    async with serve([(Echo(), add_OrderServiceServicer_to_server, NAME)], domain="test") as server:
        spread = Spread(*(Load(server.address, f"{NAME}/CreateOrder") for _ in range(2)))
        for calls in (await spread.closed(messages, 64), await spread.open(messages, 5_000.0)):
            answers = [pb.CreateOrderResponse.FromString(call.reply).order_id for call in calls]
            assert sorted(answers) == sorted(ids)
            assert [call.due for call in calls] == sorted(call.due for call in calls)


async def test_several_processes_ask_where_h2load_is_missing() -> None:
    asked: list[str] = []

    class Counting(Echo):
        async def CreateOrder(
            self, request: pb.CreateOrderRequest, context: Context
        ) -> pb.CreateOrderResponse:
            asked.append(context.peer())
            return await super().CreateOrder(request, context)

    async with serve([(Counting(), add_OrderServiceServicer_to_server, NAME)], domain="test") as server:
        rate = await clients.ask(server.address, f"{NAME}/CreateOrder", message("a"), 200, 64)
    assert (len(asked), len(set(asked)), rate > 0) == (200, 2, True)


async def test_a_process_that_cannot_ask_fails_the_measurement() -> None:
    with pytest.raises(apart.Failed):
        await clients.ask(f"127.0.0.1:{free_port()}", f"{NAME}/CreateOrder", message("a"), 2, 2)
