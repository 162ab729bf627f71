"""What times metrics and traces: its switch, its figures, and its receiver, which takes what a service sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.type.money_pb2 import Money
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from proof.bench.metered import Round, Turn, middle
from proof.bench.receiving import receiver
from proof.bench.switch import LAYERS, switch_metrics, switched
from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from tests.memory_shop import MemoryShop, NoContext
from twinlog.observe.metrics.commands import CALLS
from twinlog.observe.metrics.consumers import BATCH_EVENTS
from twinlog.observe.metrics.log import APPEND_EVENTS
from twinlog.observe.metrics.process import Metrics
from twinlog.observe.metrics.scrape import sampled
from twinlog.observe.metrics.tallies import Histogram
from twinlog.rpc import Method


async def test_what_is_switched_off_counts_nothing_and_on_it_counts_several_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("log", "call", "consumer"):  # as they were, after the test
        monkeypatch.setattr(Metrics, name, getattr(Metrics, name))
    with switched(tmp_path / "switch") as switch:
        switch_metrics()
    async with MemoryShop(measured=True) as shop:
        assert shop.order_svc.metrics
        method = Method("shop.orders.v1.OrderService/CreateOrder", False)
        create = shop.order_svc.metrics.call(method, shop.orders.CreateOrder)
        customer = CreateCustomerRequest(name="A", credit_limit=Money(currency_code="EUR", units=10))
        customer_id = (await shop.customers.CreateCustomer(customer, NoContext())).customer_id
        await shop.settle()

        async def order() -> dict[str, float]:
            before = await _counted(shop)
            total = Money(currency_code="EUR", units=1)
            request = CreateOrderRequest(
                request_id=str(shop.ids.uuid7()), customer_id=customer_id, total=total
            )
            await create(request, NoContext())
            await shop.settle()
            return {name: count - before[name] for name, count in (await _counted(shop)).items()}

        switch.on = False
        assert await order() == {CALLS.name: 0, APPEND_EVENTS.name: 0, BATCH_EVENTS.name: 0}
        switch.on = True
        on = await order()
    assert on[CALLS.name] == LAYERS
    assert on[APPEND_EVENTS.name] and on[APPEND_EVENTS.name] % LAYERS == 0  # one tally of a log
    assert on[BATCH_EVENTS.name]  # each layer around a consumer has its own


async def _counted(shop: MemoryShop) -> dict[str, float]:
    """How much was counted at the methods, logs and consumers of order_svc."""
    node = shop.order_svc
    assert node.metrics
    found: dict[str, float] = {CALLS.name: 0, APPEND_EVENTS.name: 0, BATCH_EVENTS.name: 0}
    for metric, value, *_ in await sampled(node.metrics.concerns(node)):
        if metric.name in found:
            found[metric.name] += value.count if isinstance(value, Histogram) else value
    return found


def test_a_round_tells_what_counting_and_scrapes_take() -> None:
    off = Turn(orders=100, seconds=1.0, spent=100_000)
    counted = Turn(orders=100, seconds=1.0 / 0.95, spent=110_000)
    scraped = Turn(orders=100, seconds=1.25, spent=120_000, scrapes=5)  # 20 times what it is by default
    found = Round(off, counted, scraped)
    assert found.counting == pytest.approx(0.1 / LAYERS)
    assert found.scraping == pytest.approx(0.2 / 20)
    assert found.scrape == 4_000
    assert found.rate == pytest.approx(-0.05 / LAYERS - 0.2 / 20)


@pytest.mark.parametrize(("count", "low", "high"), [(1, 0, 0), (12, 2, 9), (40, 13, 26)])
def test_the_limits_of_a_median_are_values_of_those_whose_median_it_is(
    count: int, low: int, high: int
) -> None:
    values: list[Any] = [*range(count)]
    assert middle(values[::-1]).sure == (low, high)


def test_spans_that_are_sent_are_counted() -> None:
    with receiver() as received:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{received.url}/v1/traces")))
        for _ in range(3):
            provider.get_tracer("tests").start_span("span").end()
        provider.shutdown()
    assert received.spans == 3
