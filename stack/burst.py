"""Many orders at once and their sagas: the burst of the demo, which tests disturb."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_pb2 import ORDER_STATE_PENDING, OrderState
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.saga_mode_pb2 import SagaMode
from shop.queries.v1.order_query_service_pb2 import ListOrdersRequest
from stack.clients import Addresses, Clients, Unexpected, connect, orders_of, retried
from twinlog import Money
from twinlog.testing.internals import NANOS_PER_UNIT

CONNECTIONS = 4
CREDIT_LIMIT = Money(300 * NANOS_PER_UNIT, "EUR")
"""Of each customer; about three in four of forty orders fit in."""

_PAGE = 1000
_LOOK_EVERY_SECONDS, _LAST_LOOK_EVERY_SECONDS = 0.2, 0.01

Progress = Callable[[int, int], None]
"""Called with the number of orders accepted so far, and of those known to have ended."""


class BurstUnfinished(Unexpected):
    """The burst did not end in time; the message says what is missing."""


@dataclass(frozen=True)
class Figures:
    """The outcome of a burst."""

    orders: int
    accepted_seconds: float
    """From the first call until the last CreateOrder was answered."""
    seconds: float
    """From the first call until the view showed every order's final state."""
    states: Mapping[OrderState.ValueType, int]
    """How many orders the view has in each final state."""
    customer_ids: Sequence[str]

    @property
    def sagas_per_second(self) -> float:
        """Sagas per second, whatever their outcome."""
        return self.orders / self.seconds


async def burst(
    shop: Addresses,
    mode: SagaMode.ValueType,
    *,
    orders: int = 2_000,
    customers: int = 50,
    seconds: float = 120.0,
    progress: Progress = lambda accepted, ended: None,
) -> Figures:
    """Sends ``orders`` CreateOrder calls at once, and waits until the view shows every order's final state.

    The orders are spread evenly over new customers, none of whom can pay for all of theirs. Calls carry a request_id
    and are repeated while a service is away, so that services may be killed during the burst. Raises BurstUnfinished
    after ``seconds``.
    """
    under_way = _Burst(orders, progress)
    try:
        async with asyncio.timeout(seconds), _connections(shop) as clients:
            return await under_way.run(clients, mode, customers)
    except TimeoutError as error:
        raise BurstUnfinished(
            f"after {seconds:g} s {len(under_way.order_ids):,} of {orders:,} orders were accepted, and "
            f"{under_way.ended:,} of them had ended in the view"
        ) from error


@dataclass
class _Burst:
    """A burst in progress."""

    orders: int
    progress: Progress
    order_ids: set[str] = field(default_factory=set)
    """The accepted orders."""
    token: str = ""
    """The consistency token of the last accepted order."""
    ended: int = 0

    async def run(self, clients: Sequence[Clients], mode: SagaMode.ValueType, customers: int) -> Figures:
        customer_ids = await asyncio.gather(*(_create_customer(clients[0]) for _ in range(customers)))
        requests = [
            CreateOrderRequest(
                request_id=str(uuid4()),
                customer_id=customer_ids[number % customers],
                total=_total(number // customers).to_proto(),
                saga_mode=mode,
            )
            for number in range(self.orders)
        ]
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(clients[0], customer_ids))
            await asyncio.gather(*map(self._create, itertools.cycle(clients), requests))
            accepted = time.perf_counter()
        states, ended = watching.result()
        return Figures(self.orders, accepted - started, ended - started, states, customer_ids)

    async def _create(self, client: Clients, request: CreateOrderRequest) -> None:
        response = await retried(client.orders.CreateOrder, request)
        self.order_ids.add(response.order_id)
        self.token = response.consistency_token

    async def _watch(
        self, client: Clients, customer_ids: Sequence[str]
    ) -> tuple[Counter[OrderState.ValueType], float]:
        """How many orders ended in each state, and when the view had them all."""
        while True:
            accepted = len(self.order_ids)
            nothing_pending = await self._look(client, frozenset(customer_ids))
            looked = time.perf_counter()
            if nothing_pending and accepted == self.orders:
                found = [order for id in customer_ids for order in await orders_of(client, id)]
                states = Counter(order.state for order in found)
                if {order.order_id for order in found} == self.order_ids and not states[ORDER_STATE_PENDING]:
                    return states, looked
            await asyncio.sleep(_LAST_LOOK_EVERY_SECONDS if accepted == self.orders else _LOOK_EVERY_SECONDS)

    async def _look(self, client: Clients, customer_ids: frozenset[str]) -> bool:
        """Reports the progress; returns whether the view shows no pending order of these customers."""
        accepted = len(self.order_ids)
        request = ListOrdersRequest(state=ORDER_STATE_PENDING, page_size=_PAGE, consistency_token=self.token)
        page = await retried(client.order_queries.ListOrders, request)
        if page.next_page_token:
            return False
        pending = sum(order.customer_id in customer_ids for order in page.orders)
        self.ended = max(self.ended, accepted - pending)
        self.progress(accepted, self.ended)
        return not pending


async def _create_customer(client: Clients) -> str:
    request = CreateCustomerRequest(
        request_id=str(uuid4()), name="One of many", credit_limit=CREDIT_LIMIT.to_proto()
    )
    return str((await retried(client.customers.CreateCustomer, request)).customer_id)


def _total(number: int) -> Money:
    """The total of a customer's order: 1.05, 2.05 … 20.05, and again."""
    return Money((number % 20 + 1) * NANOS_PER_UNIT + NANOS_PER_UNIT // 20, "EUR")


@asynccontextmanager
async def _connections(shop: Addresses) -> AsyncIterator[Sequence[Clients]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(connect(shop)) for _ in range(CONNECTIONS)]
