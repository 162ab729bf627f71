"""The shop in memory, its services served over gRPC as in processes of their own: each can hang, go and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from google.type.money_pb2 import Money

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.customers.v1.customer_service_pb2_grpc import add_CustomerServiceServicer_to_server
from shop.orders.v1.order_service_pb2 import CreateOrderRequest, SetSagaModeRequest
from shop.orders.v1.order_service_pb2_grpc import add_OrderServiceServicer_to_server
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION, SagaMode
from tests.controls import new_id
from tests.memory_shop import MemoryShop, NoContext, Node
from tests.waiting import beside
from twinlog.dev import free_port, until_serving
from twinlog.log.history import LogHistory
from twinlog.rpc import Behavior, Context, Method, Registration
from twinlog.rpc.peers import Peers
from twinlog.service.environment import Endpoint
from twinlog.testing import START, ManualClock

hanging: set[str] = set()
"""The services that a test lets hang, by name."""


class Served:
    """One service of the shop on a port of its own."""

    def __init__(self, node: Node, *edges: Registration) -> None:
        self.node = node
        self.name = node.name
        self.address = f"127.0.0.1:{free_port()}"
        self._edges = edges
        self.others: Mapping[str, str] = {}
        """Where the services are."""
        self._answers = asyncio.Event()
        self._answers.set()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serves, if it does not."""
        self._stop = asyncio.Event()
        self.node.peers = Peers(LogHistory(self.node.log), self.others, self.name)
        self.node.environment = replace(
            self.node.environment,
            endpoint=Endpoint(self.address, domain="shop"),
            until_stopped=self._stop.wait,
        )
        self._task = asyncio.create_task(self.node.serve(*self._edges, middleware=[self._hanging]))
        await beside(self._task, until_serving(self.address))

    async def stop(self) -> None:
        """Ends its server, as if its process were gone."""
        self.resume()
        self._stop.set()
        if self._task:
            await self._task
        self._task = None

    def hang(self) -> None:
        """From now on it answers nothing, as a process that is stopped."""
        self._answers.clear()
        hanging.add(self.name)

    def resume(self) -> None:
        """It answers again."""
        self._answers.set()
        hanging.discard(self.name)

    def _hanging(self, method: Method, behavior: Behavior) -> Behavior:
        if method.response_streaming:

            async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
                await self._answers.wait()
                async for response in behavior(request, context):
                    yield response

            return stream

        async def call(request: Any, context: Context) -> Any:
            await self._answers.wait()
            return await behavior(request, context)

        return call


class ServedShop:
    """The four services, served."""

    def __init__(self, shop: MemoryShop) -> None:
        self.shop = shop
        self.services: Mapping[str, Served] = {
            each.name: each
            for each in (
                Served(
                    shop.order_svc,
                    (shop.orders, add_OrderServiceServicer_to_server, "shop.orders.v1.OrderService"),
                ),
                Served(
                    shop.customer_svc,
                    (
                        shop.customers,
                        add_CustomerServiceServicer_to_server,
                        "shop.customers.v1.CustomerService",
                    ),
                ),
                Served(shop.saga_orchestrator),
                Served(shop.projector),
            )
        }

    def introduce(self) -> None:
        """Tells each service where the others are."""
        for each in self.services.values():
            each.others = self.addresses

    @property
    def addresses(self) -> dict[str, str]:
        """Of all services, by name."""
        return {name: each.address for name, each in self.services.items()}

    async def customer(self, units: int = 100) -> str:
        """A new customer's id."""
        request = CreateCustomerRequest(
            customer_id=new_id(), name="Ada", credit_limit=Money(currency_code="EUR", units=units)
        )
        await self.shop.customers.CreateCustomer(request, NoContext())
        return request.customer_id

    async def order(self, customer_id: str, units: int = 12) -> str:
        """A new order's id."""
        request = CreateOrderRequest(
            order_id=new_id(), customer_id=customer_id, total=Money(currency_code="EUR", units=units)
        )
        await self.shop.orders.CreateOrder(request, NoContext())
        return request.order_id

    async def orders(self, count: int, units: int = 12) -> Sequence[str]:
        """So many orders of one new customer; returns when all that follows has happened."""
        customer = await self.customer(units * count)
        made = [await self.order(customer, units) for _ in range(count)]
        await self.shop.settle()
        return made

    async def mode(self, mode: SagaMode.ValueType = SAGA_MODE_ORCHESTRATION) -> None:
        """Sets how new orders are handled."""
        await self.shop.orders.SetSagaMode(SetSagaModeRequest(saga_mode=mode), NoContext())


@asynccontextmanager
async def served(now: datetime = START) -> AsyncIterator[ServedShop]:
    """A shop of the test's own, whose clock stands at ``now``."""
    shop = MemoryShop()
    shop.clock = ManualClock(now)
    async with shop:
        made = ServedShop(shop)
        made.introduce()
        try:
            await asyncio.gather(*(each.start() for each in made.services.values()))
            yield made
        finally:
            await asyncio.gather(*(each.stop() for each in made.services.values()))


__all__ = ["Served", "ServedShop", "hanging", "served"]
