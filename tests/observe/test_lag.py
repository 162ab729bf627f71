"""How far behind a consumer is: right in every case, and asked of the stream no more than the case needs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.inspection.conftest import customer, order
from tests.memory_shop import MemoryShop
from tests.observe.scraping import Scrape, scrape_of
from tests.waiting import until
from twinlog.log import relay
from twinlog.observe.metrics.twins import Streams
from twinlog.testing import MemoryTwin

_VIEW = {"consumer": "projector.orders", "log": "orders"}
"""It wants all events."""
_POLICY = {"consumer": "customer_svc.orders", "log": "orders"}
"""It wants three types of one routing key."""


@pytest.fixture
async def shop(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryShop]:
    """Its relays leave a stream as it is made here: what is taken out of one, they would put back within a second."""
    monkeypatch.setattr(relay, "_INSPECT_SECONDS", 3_600.0)
    async with MemoryShop(measured=True) as shop:
        yield shop


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often streams were asked what."""
    found: Counter[str] = Counter()
    for name in ("state", "ahead", "next_ahead"):
        _count(monkeypatch, name, found)
    return found


def _count(monkeypatch: pytest.MonkeyPatch, name: str, found: Counter[str]) -> None:
    real: Any = getattr(MemoryTwin, name)

    async def counting(*arguments: Any) -> Any:
        found[name] += 1
        return await real(*arguments)

    monkeypatch.setattr(MemoryTwin, name, counting)


async def _held(shop: MemoryShop, orders: int) -> None:
    """Orders that the projector has not handled."""
    customer_id = await customer(shop)
    await shop.settle()
    shop.projector.works.clear()
    for _ in range(orders):
        await order(shop, customer_id)
    events = 2 * orders  # created, and approved
    await until(lambda: len(shop.logs["orders"].events) == events and _copied(shop) == events)


def _copied(shop: MemoryShop) -> int:
    return _stream(shop).last


def _stream(shop: MemoryShop) -> MemoryTwin:
    twin = shop.twin("orders")
    assert isinstance(twin, MemoryTwin)
    return twin


async def _told(shop: MemoryShop, asked: Counter[str]) -> Scrape:
    asked.clear()
    return await scrape_of(shop.projector)


async def test_who_is_at_the_end_asks_nothing_but_where_that_is(
    shop: MemoryShop, asked: Counter[str]
) -> None:
    await order(shop, await customer(shop))
    await shop.settle()
    told = await _told(shop, asked)
    assert told.value("twinlog_consumer_lag_events", **_VIEW) == 0
    assert told.value("twinlog_consumer_position_events", **_VIEW) == 2
    assert (asked["ahead"], asked["next_ahead"]) == (0, 0)


async def test_who_wants_all_and_is_behind_is_by_what_the_stream_has(
    shop: MemoryShop, asked: Counter[str]
) -> None:
    await _held(shop, 3)
    told = await _told(shop, asked)
    assert told.value("twinlog_consumer_lag_events", **_VIEW) == 6
    assert told.value("twinlog_consumer_position_events", **_VIEW) == 0
    assert asked["ahead"] == 0


async def test_what_was_trimmed_does_not_lie_ahead(shop: MemoryShop, asked: Counter[str]) -> None:
    await _held(shop, 3)
    messages = _stream(shop).messages
    assert messages
    for sequence in range(1, 5):
        del messages[sequence]
    told = await _told(shop, asked)
    assert told.value("twinlog_consumer_lag_events", **_VIEW) == 2


async def test_in_a_stream_with_holes_events_are_counted(shop: MemoryShop, asked: Counter[str]) -> None:
    await _held(shop, 3)
    messages = _stream(shop).messages
    assert messages
    del messages[4]
    told = await _told(shop, asked)
    assert told.value("twinlog_consumer_lag_events", **_VIEW) == 5
    assert asked["ahead"] == 1


async def test_nothing_is_counted_for_who_wants_nothing_of_what_lies_ahead(
    shop: MemoryShop, asked: Counter[str]
) -> None:
    await order(shop, await customer(shop))
    await shop.settle()
    asked.clear()
    told = await scrape_of(shop.customer_svc)
    assert told.value("twinlog_consumer_position_events", **_POLICY) == 1
    assert told.value("twinlog_twin_position_events", log="orders") == 2
    assert told.value("twinlog_consumer_lag_events", **_POLICY) == 0
    assert told.value("twinlog_consumer_lag_seconds", **_POLICY) == 0
    assert asked["ahead"] == 0


async def test_all_concerns_of_a_scrape_share_the_states_of_streams(
    shop: MemoryShop, asked: Counter[str]
) -> None:
    await shop.settle()
    asked.clear()
    streams = Streams(shop.projector.inspected)
    one, other = await asyncio.gather(streams.states(), streams.states())
    assert one == other
    assert {"customers", "orders", "sagas"} < one.keys()
    assert asked["state"] == len(one)
    await streams.states()
    assert asked["state"] == 2 * len(one), "asked anew at the next scrape"
