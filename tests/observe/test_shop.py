"""The shop in memory with metrics: each number is moved by what it says that it counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from tests.inspection.conftest import customer, order
from tests.memory_shop import MemoryShop
from tests.observe.scraping import scrape_of
from tests.waiting import until
from twinlog.log.twin import TwinMissing
from twinlog.testing import MemoryTwin

_CUSTOMERS = {"consumer": "customer_svc.orders", "log": "orders"}
_ORDERS = "twinlog_log_events_total"


@pytest.fixture
async def shop() -> AsyncIterator[MemoryShop]:
    async with MemoryShop(measured=True) as shop:
        yield shop


async def test_events_are_counted_by_aggregate_and_type(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    for _ in range(3):
        await order(shop, customer_id)
    await shop.settle()
    told = await scrape_of(shop.order_svc)
    for type in ("OrderCreated", "OrderApproved"):
        assert told.value(_ORDERS, log="orders", aggregate="order", type=f"shop.orders.v1.{type}") == 3
    assert told.value("twinlog_log_append_events_sum", log="orders") == 6
    assert told.value("twinlog_log_append_events_count", log="orders") >= 2
    appends = told.value("twinlog_log_append_events_count", log="orders")
    assert told.value("twinlog_log_append_duration_seconds_count", log="orders") >= appends
    assert told.value("twinlog_log_position_events", log="orders") == 6
    assert told.value("twinlog_twin_position_events", log="orders") == 6
    assert told.value("twinlog_writer_cached_streams", log="orders") >= 3


async def test_what_a_consumer_has_handled_is_counted(shop: MemoryShop) -> None:
    await order(shop, await customer(shop))
    await shop.settle()
    told = await scrape_of(shop.customer_svc)
    assert told.value("twinlog_consumer_batch_events_sum", **_CUSTOMERS) == 1
    assert told.value("twinlog_consumer_batch_duration_seconds_count", **_CUSTOMERS) == 1
    assert told.value("twinlog_consumer_event_age_seconds_count", **_CUSTOMERS) == 1
    assert told.value("twinlog_consumer_position_events", **_CUSTOMERS) == 1
    assert told.value("twinlog_consumer_running", **_CUSTOMERS) == 1
    assert told.value("twinlog_consumer_stopped", **_CUSTOMERS) == 0


async def test_a_consumer_that_is_held_up_is_behind_in_events_and_in_seconds(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    await shop.settle()
    shop.customer_svc.works.clear()
    await order(shop, customer_id)
    shop.clock.advance(timedelta(seconds=7))
    await order(shop, customer_id)
    await until(lambda: _copied(shop, "orders", 2))
    told = await scrape_of(shop.customer_svc)
    assert told.value("twinlog_consumer_lag_events", **_CUSTOMERS) == 2
    assert told.value("twinlog_consumer_lag_seconds", **_CUSTOMERS) == 7
    shop.customer_svc.works.set()
    await shop.settle()
    told = await scrape_of(shop.customer_svc)
    assert told.value("twinlog_consumer_lag_events", **_CUSTOMERS) == 0
    assert told.value("twinlog_consumer_lag_seconds", **_CUSTOMERS) == 0
    assert told.value("twinlog_consumer_event_age_seconds_sum", **_CUSTOMERS) == 7


async def test_what_the_relay_has_not_copied_is_told(
    shop: MemoryShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer_id = await customer(shop)
    await shop.settle()

    async def away(_self: Any, _events: Any) -> None:
        raise TwinMissing(stream="orders")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryTwin, "publish", away)
        await order(shop, customer_id)
        shop.clock.advance(timedelta(seconds=9))
        await until(lambda: shop.order_svc.relay.problem is not None)
        told = await scrape_of(shop.order_svc)
        assert told.value("twinlog_relay_lag_events", log="orders") == 1
        assert told.value("twinlog_relay_lag_seconds", log="orders") == 9
    await shop.settle()
    told = await scrape_of(shop.order_svc)
    assert told.value("twinlog_relay_lag_events", log="orders") == 0
    assert told.value("twinlog_relay_lag_seconds", log="orders") == 0
    assert told.value("twinlog_relay_copying", log="orders") == 1


async def test_timers_that_are_due_are_told_until_they_are_fired(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    await shop.settle()
    shop.customer_svc.works.clear()
    await order(shop, customer_id)
    assert (await scrape_of(shop.order_svc)).value("twinlog_timers_due", log="orders") == 0
    shop.clock.advance(timedelta(seconds=35))
    told = await scrape_of(shop.order_svc)
    assert told.value("twinlog_timers_due", log="orders") == 1
    assert told.value("twinlog_timer_oldest_due_seconds", log="orders") == pytest.approx(5)
    await shop.let_pass(timedelta(0))
    assert (await scrape_of(shop.order_svc)).value("twinlog_timers_due", log="orders") == 0


async def test_events_that_cannot_be_handled_are_counted(
    shop: MemoryShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinlog.consume.dead_lettering.RETRIES", 1)
    customer_id = await customer(shop)
    await shop.settle()
    [each] = [
        one for one in shop.customer_svc.inspected.followed if one.handler.name == "customer_svc.orders"
    ]

    async def failing(*_: Any) -> int:
        raise ValueError("as it happens")

    inner: Any = each.consumer
    with monkeypatch.context() as patched:
        patched.setattr(inner.inner.inner, "apply", _failing_events(inner.inner.inner.apply, failing))
        await order(shop, customer_id)
        await until(lambda: each.handler.count == 1)
    told = await scrape_of(shop.customer_svc)
    assert told.value("twinlog_consumer_dead_letters", **_CUSTOMERS) == 1
    assert told.value("twinlog_consumer_dead_lettered_total", **_CUSTOMERS) == 1
    assert told.value("twinlog_consumer_failures_total", **_CUSTOMERS, reason="INTERNAL") == 2
    assert told.value("twinlog_consumer_last_failure_timestamp_seconds", **_CUSTOMERS) > 0


def _failing_events(apply: Any, failing: Any) -> Any:
    async def applied(events: Any, progress: Any) -> Any:
        return await (failing() if events else apply(events, progress))

    return applied


def _copied(shop: MemoryShop, log: str, number: int) -> bool:
    twin: Any = shop.twin(log)
    return bool(twin.last == number == len(shop.logs[log].events))
