"""The mode of new orders: set live, seen by every replica, overridden by an order, kept over a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio

from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from shop.orders.v1.order_service_pb2 import CreateOrderRequest, GetSagaModeRequest, SetSagaModeRequest
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from stack.clients import retried
from tests.controls import Mode, wire
from tests.e2e.client import PATIENCE, Client

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def set_mode(orders: OrderServiceStub, mode: Mode) -> None:
    answer = await orders.SetSagaMode(SetSagaModeRequest(saga_mode=mode), timeout=PATIENCE)
    assert answer.saga_mode == mode


async def get_mode(orders: OrderServiceStub) -> Mode:
    answer: Any = await retried(orders.GetSagaMode, GetSagaModeRequest())
    mode: Mode = answer.saga_mode
    return mode


@pytest_asyncio.fixture(loop_scope="package")
async def orders(client: Client) -> AsyncIterator[OrderServiceStub]:
    """The mode is as it was, after the test."""
    before = await get_mode(client.orders)
    yield client.orders
    await set_mode(client.orders, before)


@pytest_asyncio.fixture(loop_scope="package")
async def second(replica: str) -> AsyncIterator[OrderServiceStub]:
    """The other replica."""
    async with grpc.aio.insecure_channel(replica) as channel:
        yield OrderServiceStub(channel)


async def test_the_mode_is_stamped_on_new_orders_of_every_replica_at_once(
    client: Client, orders: OrderServiceStub, second: OrderServiceStub
) -> None:
    customer = await client.customer()
    request = CreateOrderRequest(customer_id=customer, total=wire("0.01"))
    for setting, other in ((orders, second), (second, orders)):
        for mode in (SAGA_MODE_ORCHESTRATION, SAGA_MODE_CHOREOGRAPHY):
            await set_mode(setting, mode)
            assert await get_mode(other) == mode
            for stub in (other, setting):
                created = await stub.CreateOrder(request, timeout=PATIENCE)
                assert created.saga_mode == mode
                shown = await client.get(created.order_id, created.consistency_token)
                assert shown.saga_mode == mode


async def test_an_order_overrides_the_mode(client: Client, orders: OrderServiceStub) -> None:
    customer = await client.customer()
    await set_mode(orders, SAGA_MODE_ORCHESTRATION)
    order = await client.order(customer, "1", SAGA_MODE_CHOREOGRAPHY)
    assert (order.saga_mode, order.state) == (SAGA_MODE_CHOREOGRAPHY, ORDER_STATE_APPROVED)
    await client.happened(order.order_id, "OrderCreated", "CreditReserved", "OrderApproved")
    assert {entry.log for entry in await client.timeline(order.order_id)} == {"orders", "customers"}
    assert (await client.order(customer, "1")).saga_mode == SAGA_MODE_ORCHESTRATION


async def test_orders_in_flight_finish_in_their_own_mode(client: Client, orders: OrderServiceStub) -> None:
    customer = await client.customer()
    async with client.without("customer_svc"):
        await set_mode(orders, SAGA_MODE_ORCHESTRATION)
        orchestrated = await client.create(customer, "1")
        await set_mode(orders, SAGA_MODE_CHOREOGRAPHY)
        choreographed = await client.create(customer, "1")
    for created, mode in ((orchestrated, SAGA_MODE_ORCHESTRATION), (choreographed, SAGA_MODE_CHOREOGRAPHY)):
        [*_, order] = await client.watch(created.order_id, created.consistency_token)
        assert (order.state, order.saga_mode) == (ORDER_STATE_APPROVED, mode)


async def test_the_mode_survives_a_restart(client: Client, orders: OrderServiceStub) -> None:
    await set_mode(orders, SAGA_MODE_ORCHESTRATION)
    await client.kill("order_svc")
    assert await get_mode(orders) == SAGA_MODE_ORCHESTRATION


async def test_the_mode_that_is_set_already_makes_no_event(client: Client, orders: OrderServiceStub) -> None:
    mode = await get_mode(orders)
    before = await client.count("orders", "stream_type = 'saga_mode'")
    await set_mode(orders, mode)
    assert await client.count("orders", "stream_type = 'saga_mode'") == before
