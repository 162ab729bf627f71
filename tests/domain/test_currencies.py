"""A customer from before keeps a currency that no new one may have."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from customer_svc.domain import CUSTOMER, CreateCustomer, CurrencyMismatch
from order_svc.domain import ORDER, State
from shop.customers.v1.customer_service_pb2 import ChangeCreditLimitRequest, CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CancelOrderRequest, CreateOrderRequest
from tests.controls import CUSTOMER_ID, MODES, Mode, money, wire
from tests.memory_shop import MemoryShop, NoContext
from twinlog import InvalidArgument, Recorded
from twinlog.log.wire import from_wire
from twinlog.testing import START
from twinlog.testing.internals import Appended, Batch, NewEvent

NONE = ("XXX", "XTS")
"""Codes of ISO 4217 for no currency, and for tests."""
FROM_BEFORE = ("XAU", *NONE)
WRITTEN = Path(__file__).with_name("no_currency")
"""What release 0.1.0 wrote for a customer of each of these codes, with an order in each mode."""


async def existing(shop: MemoryShop, currency: str) -> None:
    """A customer of a release that took any code of ISO 4217."""
    created = CreateCustomer(CUSTOMER_ID, "Ada", money("15", currency))
    await shop.customer_svc.writer.execute(lambda tx: tx.do(CUSTOMER, CUSTOMER_ID, created))


async def ordered(
    shop: MemoryShop, mode: Mode, total: str, currency: str, customer: str = CUSTOMER_ID
) -> str:
    """The id of a new order."""
    order = CreateOrderRequest(customer_id=customer, total=wire(total, currency), saga_mode=mode)
    return (await shop.orders.CreateOrder(order, NoContext())).order_id


async def state(shop: MemoryShop, order_id: str) -> State:
    await shop.settle()
    return (await shop.order_svc.writer.execute(lambda tx: tx.state(ORDER, order_id))).result.state


async def reserved(shop: MemoryShop, customer_id: str) -> int:
    return (
        await shop.customer_svc.writer.execute(lambda tx: tx.state(CUSTOMER, customer_id))
    ).result.reserved


@pytest.mark.parametrize("currency", FROM_BEFORE)
@pytest.mark.parametrize("mode", MODES)
async def test_orders_and_limits_go_on(mode: Mode, currency: str) -> None:
    async with MemoryShop() as shop:
        await existing(shop, currency)
        change = ChangeCreditLimitRequest(customer_id=CUSTOMER_ID, credit_limit=wire("20", currency))
        await shop.customers.ChangeCreditLimit(change, NoContext())
        bought = await ordered(shop, mode, "18", currency)
        assert await state(shop, bought) is State.APPROVED
        assert await state(shop, await ordered(shop, mode, "18", currency)) is State.REJECTED
        await shop.orders.CancelOrder(CancelOrderRequest(order_id=bought), NoContext())
        assert await state(shop, bought) is State.CANCELLED
        assert await reserved(shop, CUSTOMER_ID) == 0


@pytest.mark.parametrize("currency", FROM_BEFORE)
@pytest.mark.parametrize("mode", MODES)
async def test_nobody_new_gets_it(mode: Mode, currency: str) -> None:
    async with MemoryShop() as shop:
        with pytest.raises(InvalidArgument):
            request = CreateCustomerRequest(name="Ada", credit_limit=wire("1", currency))
            await shop.customers.CreateCustomer(request, NoContext())
        await existing(shop, "EUR")
        change = ChangeCreditLimitRequest(customer_id=CUSTOMER_ID, credit_limit=wire("20", currency))
        with pytest.raises(CurrencyMismatch):
            await shop.customers.ChangeCreditLimit(change, NoContext())
        assert await state(shop, await ordered(shop, mode, "1", currency)) is State.REJECTED


def written(log: str) -> list[Recorded]:
    """The events that the release wrote into a log."""
    lines = map(json.loads, (WRITTEN / f"{log}.jsonl").read_text().splitlines())
    return [from_wire(line["subject"], base64.b64decode(line["message"])) for line in lines]


@asynccontextmanager
async def restored() -> AsyncIterator[MemoryShop]:
    """A shop over the release's events, whose consumers handle all of them once more."""
    shop = MemoryShop()
    for name in ("orders", "customers", "sagas"):
        for event in written(name):
            again = NewEvent(
                event.stream,
                event.version,
                event.event_id,
                event.type,
                event.payload,
                event.metadata,
                event.partition_key,
                event.routing_key,
            )
            batch = Batch(START, {event.stream: event.version - 1}, [again])
            assert isinstance(await shop.logs[name].append(batch), Appended)
    async with shop:
        await shop.settle()
        yield shop


@pytest.mark.parametrize("mode", MODES)
async def test_what_the_first_release_wrote_in_no_currency_goes_on(mode: Mode) -> None:
    created = [event for event in written("customers") if event.type.endswith("CustomerCreated")]
    async with restored() as shop:
        assert {row.currency for row in shop.views.tables["customers"].values()} == set(NONE)
        assert {row.currency for row in shop.views.tables["orders"].values()} == set(NONE)
        for event, currency in zip(created, NONE, strict=True):
            customer = event.stream.id
            old = [id for id, row in shop.views.tables["orders"].items() if row.customer_id == customer]
            assert [await state(shop, id) for id in old] == [State.APPROVED, State.APPROVED]
            bought = await ordered(shop, mode, "40", currency, customer)
            assert await state(shop, bought) is State.APPROVED
            for id in old:
                await shop.orders.CancelOrder(CancelOrderRequest(order_id=id), NoContext())
            await shop.settle()
            assert await reserved(shop, customer) == money("40").nanos
            assert await state(shop, await ordered(shop, mode, "1", "EUR", customer)) is State.REJECTED
        shop.check()
