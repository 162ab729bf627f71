"""How queries wait for a view."""

from __future__ import annotations

import asyncio

import pytest

from twinlog.rpc.freshness import Freshness, ViewLagging


async def test_a_view_that_does_not_get_there_is_lagging() -> None:
    freshness = Freshness({"projector.orders": "orders"})
    freshness.changed("projector.orders", 3, ())

    with pytest.raises(ViewLagging) as lagging:
        await freshness.reached({"orders": 4}, 0)
    assert lagging.value.facts == {"log": "orders", "reached": "3", "wanted": "4"}


async def test_an_advance_in_the_moment_of_the_timeout_is_in_time() -> None:
    freshness = Freshness({"projector.orders": "orders"})
    waiting = asyncio.create_task(freshness.reached({"orders": 1}, 0))
    await asyncio.sleep(0)  # it waits now, and its time is up already
    freshness.changed("projector.orders", 1, ())

    await waiting
