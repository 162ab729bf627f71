"""The calls of the page: the shop's public services, as any of its clients uses them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import uuid4

from google.type.money_pb2 import Money

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.customers.v1.customer_service_pb2_grpc import CustomerServiceStub
from shop.orders.v1 import order_service_pb2 as orders
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.orders.v1.saga_mode_pb2 import SagaMode
from shop.queries.v1 import customer_query_service_pb2 as customer_queries
from shop.queries.v1 import order_query_service_pb2 as order_queries
from shop.queries.v1.customer_query_service_pb2_grpc import CustomerQueryServiceStub
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack.topology import CUSTOMER_SVC, ORDER_SVC, PROJECTOR
from twinlog.console import Answer, Services

_CURRENCY = "EUR"
_NANOS = 1_000_000_000
_SHOWN_ORDERS, _SHOWN_CUSTOMERS = 12, 6
_WAIT_SECONDS = 5.0
"""For a command: a service that is busy or just started answers within that."""
NEW_CUSTOMER_SECONDS = 1.5
"""For the customer of an order, whom an earlier one can stand in for."""


def money(text: str) -> Money | None:
    """An amount in euros, such as 12.34 or 12,34; None for any other text."""
    try:
        amount = Decimal(text.replace(",", "."))
        units, nanos = divmod(int(amount * _NANOS), _NANOS)
        return Money(currency_code=_CURRENCY, units=units, nanos=nanos)
    except (ArithmeticError, ValueError):
        return None


def amount(of: Money) -> str:
    """An amount for people."""
    digits = _digits(of, ",").replace(",", "\u202f")  # as the console counts
    return f"{digits} {of.currency_code}"


def written(of: Money) -> str:
    """An amount as :func:`money` reads it."""
    return _digits(of, "")


def _digits(of: Money, thousands: str) -> str:
    """All of its digits, two after the point at the least."""
    exact = Decimal(of.units) + Decimal(of.nanos) / _NANOS
    places = next((places for places in range(2, 9) if round(exact, places) == exact), 9)
    return f"{exact:{thousands}.{places}f}"


def nanos(of: Money) -> int:
    """An amount in billionths of its currency."""
    return int(of.units * _NANOS + of.nanos)


def share(part: Money, of: Money) -> float:
    """How much of a whole that is, from 0 to 1."""
    return min(1.0, max(0.0, nanos(part) / nanos(of))) if nanos(of) > 0 else 0.0


async def create_customer(
    services: Services, name: str, limit: Money, seconds: float = _WAIT_SECONDS
) -> Answer[Any]:
    """Makes a customer."""
    request = CreateCustomerRequest(request_id=str(uuid4()), name=name, credit_limit=limit)
    return await services.ask(
        CUSTOMER_SVC.name, lambda c: CustomerServiceStub(c).CreateCustomer, request, seconds=seconds
    )


async def create_order(
    services: Services, customer_id: str, total: Money, mode: SagaMode.ValueType, order_id: str = ""
) -> Answer[orders.CreateOrderResponse]:
    """Makes an order; a ``mode`` that is unspecified is the shop's, an ``order_id`` that is empty is made by it."""
    request = orders.CreateOrderRequest(
        request_id=str(uuid4()), order_id=order_id, customer_id=customer_id, total=total, saga_mode=mode
    )
    return await services.ask(
        ORDER_SVC.name, lambda c: OrderServiceStub(c).CreateOrder, request, seconds=_WAIT_SECONDS
    )


async def cancel_order(services: Services, order_id: str) -> Answer[Any]:
    """Takes an order back."""
    request = orders.CancelOrderRequest(request_id=str(uuid4()), order_id=order_id)
    return await services.ask(
        ORDER_SVC.name, lambda c: OrderServiceStub(c).CancelOrder, request, seconds=_WAIT_SECONDS
    )


async def mode(services: Services) -> Answer[orders.GetSagaModeResponse]:
    """The shop's mode."""
    return await services.ask(
        ORDER_SVC.name, lambda c: OrderServiceStub(c).GetSagaMode, orders.GetSagaModeRequest()
    )


async def set_mode(services: Services, wanted: SagaMode.ValueType) -> Answer[Any]:
    """Sets the mode of orders that are made from now on."""
    request = orders.SetSagaModeRequest(saga_mode=wanted)
    return await services.ask(
        ORDER_SVC.name, lambda c: OrderServiceStub(c).SetSagaMode, request, seconds=_WAIT_SECONDS
    )


async def newest_orders(services: Services) -> Answer[order_queries.ListOrdersResponse]:
    """Some orders, the newest first."""
    request = order_queries.ListOrdersRequest(page_size=_SHOWN_ORDERS)
    return await services.ask(PROJECTOR.name, lambda c: OrderQueryServiceStub(c).ListOrders, request)


async def newest_customers(services: Services) -> Answer[customer_queries.ListCustomersResponse]:
    """Some customers, the newest first."""
    request = customer_queries.ListCustomersRequest(page_size=_SHOWN_CUSTOMERS)
    return await services.ask(PROJECTOR.name, lambda c: CustomerQueryServiceStub(c).ListCustomers, request)


async def order(services: Services, order_id: str, token: str) -> Answer[order_queries.GetOrderResponse]:
    """An order as the view has it, at least as new as the token."""
    request = order_queries.GetOrderRequest(order_id=order_id, consistency_token=token)
    return await services.ask(PROJECTOR.name, lambda c: OrderQueryServiceStub(c).GetOrder, request)


async def timeline(services: Services, order_id: str) -> Sequence[order_queries.TimelineEntry]:
    """The events of an order's saga, causes before effects; none where they are not known yet."""
    request = order_queries.GetOrderTimelineRequest(order_id=order_id)
    answer = await services.ask(PROJECTOR.name, lambda c: OrderQueryServiceStub(c).GetOrderTimeline, request)
    return list(answer.message.entries) if answer.message else []


async def customer(services: Services, customer_id: str) -> customer_queries.Customer | None:
    """A customer as the view has it; None where there is none."""
    request = customer_queries.GetCustomerRequest(customer_id=customer_id)
    answer = await services.ask(PROJECTOR.name, lambda c: CustomerQueryServiceStub(c).GetCustomer, request)
    return answer.message.customer if answer.message else None
