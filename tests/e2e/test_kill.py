"""kill -9 of all services in a burst of orders in both modes: afterwards everything has converged and balances."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED, ORDER_STATE_REJECTED
from shop.sagas.v1 import saga_service_pb2 as sagas
from stack.balance import balance
from stack.burst import Figures, burst
from stack.clients import retried
from stack.topology import NAMES
from tests.controls import MODES
from tests.e2e.client import DATABASES, Client
from tests.waiting import until
from twinlog.testing.internals import JetStreamTwin
from twinlog.testing.internals import connect as connect_nats

pytestmark = pytest.mark.asyncio(loop_scope="package")

ORDERS, CUSTOMERS = 300, 10


async def test_a_burst_survives_the_death_of_all_services(client: Client) -> None:
    """All at once; `tests/chaos/test_chaos.py` has the death of each alone, and what is to be seen then."""
    for orders in (ORDERS, 4 * ORDERS, 16 * ORDERS):
        killed_in_time, figures = await killed_in_a_burst(client, orders)
        if killed_in_time:
            break
    assert killed_in_time, "the bursts were over before the services died"
    for figure in figures:
        # The burst itself holds that every acknowledged order is in the view, and no other.
        assert figure.states[ORDER_STATE_APPROVED] + figure.states[ORDER_STATE_REJECTED] == orders
    customer_ids = [id for figure in figures for id in figure.customer_ids]

    async def balances() -> bool:
        return (await balance(client.shop.postgres_url, client, customer_ids)).holds

    await until(balances, seconds=120)
    await until(lambda: no_saga_is_left(client), seconds=120)
    await until(lambda: twins_are_whole(client), seconds=120)
    assert await client.count("orders", "type = 'shop.orders.v1.OrderCreated' AND NOT " + IS_ENDED) == 0


async def killed_in_a_burst(client: Client, orders: int) -> tuple[bool, Sequence[Figures]]:
    """Whether the burst was still under way when all services were killed, and what it came to."""
    begun = asyncio.Event()

    def progress(accepted: int, _ended: int) -> None:
        if accepted:
            begun.set()

    bursts: asyncio.Future[Any] = asyncio.gather(
        *[
            burst(client.shop, mode, orders=orders, customers=CUSTOMERS, seconds=240, progress=progress)
            for mode in MODES
        ]
    )
    beginning: asyncio.Future[Any] = asyncio.create_task(begun.wait())
    await asyncio.wait([beginning, bursts], return_when=asyncio.FIRST_COMPLETED)
    beginning.cancel()
    in_time = not bursts.done()
    await asyncio.gather(*map(client.kill, NAMES))
    return in_time, await bursts


IS_ENDED = """EXISTS (
    SELECT FROM events AS later WHERE later.stream_id = events.stream_id
       AND later.type IN ('shop.orders.v1.OrderApproved', 'shop.orders.v1.OrderRejected',
                          'shop.orders.v1.OrderCancelled'))"""


async def no_saga_is_left(client: Client) -> bool:
    """Whether every saga has come to its end."""
    for status in (sagas.SAGA_STATUS_RUNNING, sagas.SAGA_STATUS_COMPENSATING):
        request = sagas.ListSagasRequest(status=status, page_size=1)
        if (await retried(client.sagas.ListSagas, request)).sagas:
            return False
    return True


async def twins_are_whole(client: Client) -> bool:
    """Whether each stream has exactly the events of its log."""
    nats = await connect_nats(client.shop.nats_url, "tests")
    try:
        for log in DATABASES:
            state = await JetStreamTwin(nats, log).state()
            head = await client.head(log)
            events = await client.count(log, "true")
            if (state.first, state.last, state.holes) != (1, head, 0) or events != head:
                return False
        return True
    finally:
        await nats.close()
