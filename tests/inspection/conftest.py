"""The shop in memory, and the inspection of one of its services on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from google.type.money_pb2 import Money

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from tests.controls import new_id
from tests.memory_shop import MemoryShop, NoContext
from twinlog import Service
from twinlog.rpc import serve
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.registrations import registrations
from twinlog.v1.inspection_pb2_grpc import (
    InspectionServiceStub,
)


@pytest.fixture
async def shop() -> AsyncIterator[MemoryShop]:
    async with MemoryShop() as shop:
        yield shop


@asynccontextmanager
async def inspection(service: Service) -> AsyncIterator[Any]:
    """The stub of a service's inspection."""
    [registration] = registrations(InspectionService(service.inspected))
    async with (
        serve([registration], domain="shop") as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield InspectionServiceStub(channel)


async def customer(shop: MemoryShop) -> str:
    """A new customer's id."""
    request = CreateCustomerRequest(
        customer_id=new_id(), name="Ada", credit_limit=Money(currency_code="EUR", units=100)
    )
    await shop.customers.CreateCustomer(request, NoContext())
    return request.customer_id


async def order(shop: MemoryShop, customer_id: str, units: int = 1) -> str:
    """A new order's id."""
    request = CreateOrderRequest(
        order_id=new_id(), customer_id=customer_id, total=Money(currency_code="EUR", units=units)
    )
    await shop.orders.CreateOrder(request, NoContext())
    return request.order_id
