"""The shop's rules over gRPC, in both modes."""

from __future__ import annotations

import grpc.aio
import pytest

from shop.orders.v1.order_pb2 import (
    ORDER_STATE_APPROVED,
    ORDER_STATE_CANCELLED,
    ORDER_STATE_REJECTED,
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_DEADLINE_EXCEEDED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
)
from shop.orders.v1.order_service_pb2 import CancelOrderRequest, CreateOrderRequest
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from shop.sagas.v1.saga_service_pb2 import SAGA_STATUS_COMPENSATED
from tests.controls import MODES, Mode, new_id, wire
from tests.e2e.client import PATIENCE, Client, refusal
from tests.waiting import until

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.parametrize("mode", MODES, ids=["choreography", "orchestration"]),
]


async def test_an_order_within_the_limit_is_approved(client: Client, mode: Mode) -> None:
    customer = await client.customer("15")
    order = await client.order(customer, "12.34", mode)
    assert (order.state, order.saga_mode, order.rejection_reason) == (ORDER_STATE_APPROVED, mode, 0)
    await client.reserves(customer, "12.34")
    seen = await client.get_customer(customer)
    assert seen.available == wire("2.66")


async def test_equal_is_enough_and_then_nothing_is_left(client: Client, mode: Mode) -> None:
    customer = await client.customer("15")
    assert (await client.order(customer, "15", mode)).state == ORDER_STATE_APPROVED
    next_order = await client.order(customer, "0.000000001", mode)
    assert next_order.rejection_reason == REJECTION_REASON_INSUFFICIENT_CREDIT


async def test_every_refusal_reaches_the_order_with_its_reason(client: Client, mode: Mode) -> None:
    customer = await client.customer("15")
    orders = [
        await client.order(customer, "123.40", mode),
        await client.order(new_id(), "1", mode),
        await client.order(customer, "1", mode, currency="USD"),
    ]
    assert {order.state for order in orders} == {ORDER_STATE_REJECTED}
    assert [order.rejection_reason for order in orders] == [
        REJECTION_REASON_INSUFFICIENT_CREDIT,
        REJECTION_REASON_UNKNOWN_CUSTOMER,
        REJECTION_REASON_CURRENCY_MISMATCH,
    ]
    await client.reserves(customer, "0")


async def test_cancelling_an_approved_order_gives_its_credit_back(client: Client, mode: Mode) -> None:
    customer = await client.customer("15")
    order = await client.order(customer, "12", mode)
    cancelled = await client.cancel(order.order_id)
    assert cancelled.state == ORDER_STATE_CANCELLED
    assert (await client.get(order.order_id, cancelled.consistency_token)).state == ORDER_STATE_CANCELLED
    await client.reserves(customer, "0")
    assert (await client.order(customer, "15", mode)).state == ORDER_STATE_APPROVED
    assert (await client.cancel(order.order_id)).state == ORDER_STATE_CANCELLED, "a repeat does no harm"


async def test_cancelling_a_pending_order_wins_over_the_reservation_in_flight(
    client: Client, mode: Mode
) -> None:
    customer = await client.customer("15")
    async with client.without("customer_svc"):
        created = await client.create(customer, "12", mode)
        cancelled = await client.cancel(created.order_id)
    [order] = await client.watch(created.order_id, cancelled.consistency_token)
    assert order.state == ORDER_STATE_CANCELLED
    await client.happened(created.order_id, "CreditReserved", "CreditReleased")
    await client.reserves(customer, "0")
    if mode == SAGA_MODE_ORCHESTRATION:

        async def compensated() -> bool:
            return bool((await client.saga(created.order_id)).status == SAGA_STATUS_COMPENSATED)

        await until(compensated)


async def test_a_rejected_order_cannot_be_cancelled(client: Client, mode: Mode) -> None:
    order = await client.order(new_id(), "1", mode)
    request = CancelOrderRequest(order_id=order.order_id)
    refused = await refusal(client.orders.CancelOrder(request, timeout=PATIENCE))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ORDER_NOT_CANCELLABLE",
    )
    assert (await client.get(order.order_id)).state == ORDER_STATE_REJECTED


async def test_a_raised_limit_makes_room_and_a_lowered_one_takes_it(client: Client, mode: Mode) -> None:
    customer = await client.customer("15")
    assert (await client.order(customer, "12", mode)).state == ORDER_STATE_APPROVED
    assert (await client.order(customer, "12", mode)).state == ORDER_STATE_REJECTED
    await client.limit(customer, "24")
    assert (await client.order(customer, "12", mode)).state == ORDER_STATE_APPROVED
    lowered = await client.limit(customer, "10")
    assert (await client.order(customer, "0.01", mode)).state == ORDER_STATE_REJECTED
    seen = await client.get_customer(customer, lowered)
    assert (seen.credit_limit, seen.reserved, seen.available) == (wire("10"), wire("24"), wire("-14"))


async def test_an_order_that_nobody_answers_is_rejected_at_its_deadline_and_the_late_credit_released(
    client: Client, replica: str, mode: Mode
) -> None:
    customer = await client.customer("15")
    request = CreateOrderRequest(customer_id=customer, total=wire("12"), saga_mode=mode)
    async with client.without("customer_svc"):
        async with grpc.aio.insecure_channel(replica) as channel:
            created = await OrderServiceStub(channel).CreateOrder(request, timeout=PATIENCE)
        [*_, rejected] = await client.watch(created.order_id, created.consistency_token)
    assert (rejected.state, rejected.rejection_reason) == (
        ORDER_STATE_REJECTED,
        REJECTION_REASON_DEADLINE_EXCEEDED,
    )
    await client.happened(created.order_id, "CreditReserved", "CreditReleased")
    await client.reserves(customer, "0")
    assert (await client.get(created.order_id)).rejection_reason == REJECTION_REASON_DEADLINE_EXCEEDED
