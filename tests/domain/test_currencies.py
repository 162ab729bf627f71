"""A customer from before keeps a currency that no new one may have."""

from __future__ import annotations

import pytest

from customer_svc.domain import CUSTOMER, CreateCustomer, CurrencyMismatch
from order_svc.domain import ORDER, State
from shop.customers.v1.customer_service_pb2 import ChangeCreditLimitRequest, CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from tests.controls import CUSTOMER_ID, MODES, Mode, money, wire
from tests.memory_shop import MemoryShop, NoContext
from twinlog import InvalidArgument


async def existing(shop: MemoryShop, currency: str) -> None:
    """A customer of a release that took any code of ISO 4217."""
    created = CreateCustomer(CUSTOMER_ID, "Ada", money("15", currency))
    await shop.customer_svc.writer.execute(lambda tx: tx.do(CUSTOMER, CUSTOMER_ID, created))


@pytest.mark.parametrize("mode", MODES)
async def test_orders_and_limits_go_on(mode: Mode) -> None:
    async with MemoryShop() as shop:
        await existing(shop, "XAU")
        change = ChangeCreditLimitRequest(customer_id=CUSTOMER_ID, credit_limit=wire("20", "XAU"))
        await shop.customers.ChangeCreditLimit(change, NoContext())
        order = CreateOrderRequest(customer_id=CUSTOMER_ID, total=wire("18", "XAU"), saga_mode=mode)
        created = await shop.orders.CreateOrder(order, NoContext())
        await shop.settle()
        state = await shop.order_svc.writer.execute(lambda tx: tx.state(ORDER, created.order_id))
        assert state.result.state is State.APPROVED


async def test_even_where_it_is_none_the_limit_may_change() -> None:
    async with MemoryShop() as shop:
        await existing(shop, "XXX")
        change = ChangeCreditLimitRequest(customer_id=CUSTOMER_ID, credit_limit=wire("20", "XXX"))
        await shop.customers.ChangeCreditLimit(change, NoContext())


async def test_nobody_new_gets_it() -> None:
    async with MemoryShop() as shop:
        with pytest.raises(InvalidArgument):
            request = CreateCustomerRequest(name="Ada", credit_limit=wire("1", "XAU"))
            await shop.customers.CreateCustomer(request, NoContext())
        await existing(shop, "EUR")
        change = ChangeCreditLimitRequest(customer_id=CUSTOMER_ID, credit_limit=wire("20", "XAU"))
        with pytest.raises(CurrencyMismatch):
            await shop.customers.ChangeCreditLimit(change, NoContext())
        order = CreateOrderRequest(customer_id=CUSTOMER_ID, total=wire("1", "XAU"))
        created = await shop.orders.CreateOrder(order, NoContext())
        await shop.settle()
        state = await shop.order_svc.writer.execute(lambda tx: tx.state(ORDER, created.order_id))
        assert state.result.state is State.REJECTED
