"""Both modes are one shop: any script of commands comes to the same answers, states, reasons and credit in each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_APPROVED,
    ORDER_STATE_CANCELLED,
    ORDER_STATE_PENDING,
    ORDER_STATE_REJECTED,
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_DEADLINE_EXCEEDED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
)
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from stack.clients import orders_of
from tests.controls import MODES, Mode, money, new_id, wire
from tests.e2e.client import PATIENCE, Client, refusal_of
from tests.memory_shop import DEADLINE, MemoryShop, NoContext
from tests.scripts import (
    ALL,
    CALM,
    Answer,
    Cancel,
    CancelledInFlight,
    Command,
    NewCustomer,
    NewLimit,
    NewOrder,
    Outcome,
    Repeat,
    Unanswered,
    play,
    scripts,
)
from tests.waiting import until
from twinlog import Money, TwinlogError
from twinlog.rpc import tokens

Modes = Callable[[int], Mode]


def choreographed(_order: int) -> Mode:
    return SAGA_MODE_CHOREOGRAPHY


def orchestrated(_order: int) -> Mode:
    return SAGA_MODE_ORCHESTRATION


def mixed(order: int) -> Mode:
    return MODES[order % 2]


class MemoryStage:
    """The shop in memory."""

    def __init__(self, shop: MemoryShop) -> None:
        self._shop = shop

    async def call(self, request: Any) -> Answer:
        of_customers = type(request).__module__.endswith("customer_service_pb2")
        service: Any = self._shop.customers if of_customers else self._shop.orders
        method = getattr(service, type(request).__name__.removesuffix("Request"))
        try:
            await method(request, NoContext())
        except TwinlogError as refusal:
            return refusal.reason
        return "OK"

    async def call_at_once(self, requests: Sequence[Any]) -> Sequence[Answer]:
        # One batch of the writer: the second is decided on the state after the first.
        return await asyncio.gather(*map(self.call, requests))

    async def call_unanswered(self, request: Any) -> Answer:
        self._shop.customer_svc.works.clear()
        answer = await self.call(request)
        await self._shop.settle()
        await self._shop.let_pass(DEADLINE)
        await self._shop.settle()
        self._shop.customer_svc.works.set()
        return answer

    async def settle(self) -> None:
        await self._shop.settle()

    async def order(self, order_id: str) -> tuple[int, int]:
        row = self._shop.views.tables["orders"][order_id]
        return row.state, row.reason

    async def customer(self, customer_id: str) -> tuple[int, int]:
        row = self._shop.views.tables["customers"][customer_id]
        return row.limit_nanos, row.reserved_nanos


def in_memory(script: Sequence[Command], modes: Modes) -> Outcome:
    async def run() -> Outcome:
        async with MemoryShop() as shop:
            outcome = await play(MemoryStage(shop), script, modes)
            balances(shop)
            return outcome

    return asyncio.run(run())


def balances(shop: MemoryShop) -> None:
    """At rest: nothing pending, and what each customer has reserved is the sum of the approved orders."""
    orders = shop.views.tables.get("orders", {}).values()
    for row in shop.views.tables["customers"].values():
        mine = [order for order in orders if order.customer_id == row.customer_id]
        approved = sum(order.total_nanos for order in mine if order.state == ORDER_STATE_APPROVED)
        assert row.reserved_nanos == approved
    assert not shop.logs["sagas"].timers
    assert not shop.logs["orders"].timers


@settings(max_examples=25, deadline=None, derandomize=True)
@given(scripts(ALL, longest=14))
def test_any_script_comes_to_the_same_in_both_modes(script: list[Command]) -> None:
    outcome = in_memory(script, choreographed)
    assert in_memory(script, orchestrated) == outcome
    assert in_memory(script, mixed) == outcome


@pytest.mark.parametrize("modes", [choreographed, orchestrated, mixed])
def test_a_script_that_meets_every_rule(modes: Modes) -> None:
    """Holds that the plays above compare something."""
    script: list[Command] = [
        NewCustomer(15),
        NewOrder(0, 12),
        NewOrder(0, 12),
        NewOrder(-1, 1),
        NewOrder(0, 1, "USD"),
        Unanswered(0, 1),
        CancelledInFlight(0, 1),
        Cancel(0),
        Cancel(0),
        Cancel(1),
        NewOrder(0, 15),
        NewLimit(0, 5),
        NewOrder(0, 1),
        NewLimit(0, 16),
        NewOrder(0, 1),
        NewLimit(0, 16, "USD"),
        Repeat(1),
    ]
    outcome = in_memory(script, modes)
    rejected = ORDER_STATE_REJECTED
    assert outcome.orders == [
        (ORDER_STATE_CANCELLED, 0),
        (rejected, REJECTION_REASON_INSUFFICIENT_CREDIT),
        (rejected, REJECTION_REASON_UNKNOWN_CUSTOMER),
        (rejected, REJECTION_REASON_CURRENCY_MISMATCH),
        (rejected, REJECTION_REASON_DEADLINE_EXCEEDED),
        (ORDER_STATE_CANCELLED, 0),
        (ORDER_STATE_APPROVED, 0),
        (rejected, REJECTION_REASON_INSUFFICIENT_CREDIT),
        (ORDER_STATE_APPROVED, 0),
    ]
    assert outcome.customers == [(money("16").nanos, money("16").nanos)]
    assert [answer for answer in outcome.answers if answer != "OK"] == [
        "ORDER_NOT_CANCELLABLE",
        "CURRENCY_MISMATCH",
    ]


@pytest.mark.parametrize("mode", MODES)
async def test_an_order_may_wait_as_long_as_its_own_deadline_says(mode: Mode) -> None:
    async with MemoryShop(deadline=timedelta(hours=1)) as shop:
        stage, customer, order = MemoryStage(shop), new_id(), new_id()
        limit = CreateCustomerRequest(customer_id=customer, name="Ada", credit_limit=wire("1"))
        assert await stage.call(limit) == "OK"
        shop.customer_svc.works.clear()
        create = CreateOrderRequest(order_id=order, customer_id=customer, total=wire("1"), saga_mode=mode)
        assert await stage.call(create) == "OK"
        await shop.settle()
        await shop.let_pass(timedelta(minutes=59))
        await shop.settle()
        assert await stage.order(order) == (ORDER_STATE_PENDING, 0)
        shop.customer_svc.works.set()
        await shop.settle()
        assert await stage.order(order) == (ORDER_STATE_APPROVED, 0)


class RunningStage:
    """The running shop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._orders: set[str] = set()
        self._customers: set[str] = set()

    async def call(self, request: Any) -> Answer:
        name = type(request).__name__.removesuffix("Request")
        stubs = (self._client.orders, self._client.customers)
        method = next(getattr(stub, name) for stub in stubs if hasattr(stub, name))
        try:
            await method(request, timeout=PATIENCE)
        except grpc.aio.AioRpcError as refused:
            return refusal_of(refused).reason
        if isinstance(request, CreateOrderRequest):
            self._orders.add(request.order_id)
        if isinstance(request, CreateCustomerRequest):
            self._customers.add(request.customer_id)
        return "OK"

    async def settle(self) -> None:
        """At rest when no order is pending, and every customer holds what the approved orders come to."""
        await until(self._rests)

    async def _rests(self) -> bool:
        token = tokens.write({log: await self._client.head(log) for log in ("orders", "customers")})
        for customer_id in self._customers:
            customer = await self._client.get_customer(customer_id, token)
            orders = await orders_of(self._client, customer_id)
            approved = [Money.of(o.total).nanos for o in orders if o.state == ORDER_STATE_APPROVED]
            if sum(approved) != Money.of(customer.reserved).nanos:
                return False
        seen = [await self._client.get(order_id, token) for order_id in self._orders]
        return all(order.state != ORDER_STATE_PENDING for order in seen)

    async def order(self, order_id: str) -> tuple[int, int]:
        order = await self._client.get(order_id)
        return order.state, order.rejection_reason

    async def customer(self, customer_id: str) -> tuple[int, int]:
        customer = await self._client.get_customer(customer_id)
        return Money.of(customer.credit_limit).nanos, Money.of(customer.reserved).nanos


@pytest.mark.asyncio(loop_scope="package")
@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(scripts(CALM, longest=10))
async def test_scripts_come_to_the_same_in_the_running_shop(client: Client, script: list[Command]) -> None:
    played = [
        await play(RunningStage(client), script, modes) for modes in (choreographed, orchestrated, mixed)
    ]
    assert played[0] == played[1] == played[2]
    assert in_thread(script) == played[0], "and in memory"


def in_thread(script: Sequence[Command]) -> Outcome:
    """Played in memory, beside the loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(in_memory, script, choreographed).result()
