"""What a saga costs in calls, not in time: the services' own wiring on memory adapters, every call counted.

Time is simulated, so that what else the machine does changes no batch, and no count.

``python -m tests.bench.counting`` records today's counts as the budget.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from google.type.money_pb2 import Money

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION, SagaMode
from stack.topology import ROOT
from tests.memory_shop import MemoryShop, NoContext
from twinlog.observe.metrics.exposition import text
from twinlog.observe.metrics.scrape import sampled
from twinlog.rpc import Method
from twinlog.testing import MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.simulation.loop import SimulatedLoop

BUDGET = Path(__file__).with_name("budget.json")
MODES = {"choreography": SAGA_MODE_CHOREOGRAPHY, "orchestration": SAGA_MODE_ORCHESTRATION}
_TOGETHER = 200
_WARM_UP = 20
_TRIPS = {
    MemoryLog: (
        "append",
        "load",
        "reply",
    ),  # reads follow a clock: the relay looks whether it was told everything
    MemoryTwin: ("publish",),
    MemoryViews: ("rows", "commit"),
}
_NOT_OURS = tuple(
    str(ROOT / path) for path in ("tests", ".venv", "twinlog/memory", "twinlog/testing/simulation")
)
_METRICS = str(ROOT / "twinlog/observe/metrics")
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")
"""Calls up to Python 3.11, no calls after it."""

_PATIENCE_SECONDS = 600.0
"""Of simulated time."""

Counts = Mapping[str, float]


def count(mode: str) -> Counts:
    """Calls of the project's own functions a saga, where many run together; round trips, where one runs alone."""
    loop = SimulatedLoop()  # type: ignore[abstract]
    counting = loop.start(_count(mode))
    counting.add_done_callback(lambda _counting: loop.stop())
    loop.run(_PATIENCE_SECONDS)
    counts = counting.result()
    loop.close()
    return counts


async def _count(mode: str) -> Counts:
    async with MemoryShop() as shop:
        customer = CreateCustomerRequest(name="A", credit_limit=Money(currency_code="EUR", units=10**6))
        customer_id = (await shop.customers.CreateCustomer(customer, NoContext())).customer_id
        await _orders(shop, customer_id, MODES[mode], _WARM_UP)
        with counted() as alone:
            await _orders(shop, customer_id, MODES[mode], 1)
        with counted() as together:
            await _orders(shop, customer_id, MODES[mode], _TOGETHER)
    metrics, scrape = await _metrics(mode)
    return {
        "calls a saga, 200 together": round(of_services(together) / _TOGETHER, 1),
        "calls of metrics a saga, 200 together": round(metrics / _TOGETHER, 1),
        "calls of a scrape of all services": scrape,
        "round trips of 200 together": _round_trips(together),
        "round trips of one alone": _round_trips(alone),
    }


async def _metrics(mode: str) -> tuple[int, int]:
    """Calls that metrics add to sagas that run together, where they are on; and those of a scrape of all services."""
    async with MemoryShop(measured=True) as shop:
        customer = CreateCustomerRequest(name="A", credit_limit=Money(currency_code="EUR", units=10**6))
        customer_id = (await shop.customers.CreateCustomer(customer, NoContext())).customer_id
        await _orders(shop, customer_id, MODES[mode], _WARM_UP)
        with counted() as together:
            await _orders(shop, customer_id, MODES[mode], _TOGETHER)
        await _scrape(shop)  # what does not change is kept as it is written
        with counted() as scraped:
            await _scrape(shop)
    of_metrics = (number for code, number in together.items() if code.co_filename.startswith(_METRICS))
    return sum(of_metrics), of_services(scraped)


async def _scrape(shop: MemoryShop) -> None:
    for node in shop.nodes:
        assert node.metrics
        text(await sampled(node.metrics.concerns(node)))


async def _orders(shop: MemoryShop, customer_id: str, mode: SagaMode.ValueType, number: int) -> None:
    """Creates orders at once and waits until their sagas are in the views."""
    requests = [
        CreateOrderRequest(
            request_id=str(shop.ids.uuid7()),
            customer_id=customer_id,
            total=Money(currency_code="EUR", units=1),
            saga_mode=mode,
        )
        for _ in range(number)
    ]
    create: Any = shop.orders.CreateOrder
    if metrics := shop.order_svc.metrics:  # as a server goes around it
        create = metrics.call(Method("shop.orders.v1.OrderService/CreateOrder", False), create)
    await asyncio.gather(*(create(request, NoContext()) for request in requests))
    await shop.settle()


@contextmanager
def counted() -> Iterator[Counter[CodeType]]:
    """How often each Python function is called within the block."""
    found: Counter[CodeType] = Counter()

    def on_event(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_name not in _COMPREHENSIONS:
            found[frame.f_code] += 1

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        yield found
    finally:
        sys.setprofile(before)


def of_services(counts: Counter[CodeType]) -> int:
    """Calls of what the services run of this project: no tests, no ports in memory, nothing that watches them."""
    return sum(
        number
        for code, number in counts.items()
        if code.co_filename.startswith(str(ROOT)) and not code.co_filename.startswith(_NOT_OURS)
    )


def _round_trips(counts: Counter[CodeType]) -> int:
    """Calls that would each be one to Postgres or to JetStream; a coroutine that waits is resumed, so called again."""
    return sum(counts[getattr(port, name).__code__] for port, names in _TRIPS.items() for name in names)


def recorded() -> Mapping[str, Counts]:
    """The budget, by mode."""
    found: Mapping[str, Counts] = json.loads(BUDGET.read_text())
    return found


if __name__ == "__main__":
    today = {mode: count(mode) for mode in MODES}
    BUDGET.write_text(json.dumps(today, indent=2) + "\n")
    print(json.dumps(today, indent=2))
