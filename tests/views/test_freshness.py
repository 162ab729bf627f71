"""How queries wait for a view."""

from __future__ import annotations

import asyncio

import pytest

from tests.waiting import until
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


async def test_a_look_that_has_begun_already_does_not_tell_how_stale_an_answer_is() -> None:
    """It may have read the checkpoints before another replica committed, and answered with its token."""
    freshness = Freshness({"projector.orders": "orders"})
    freshness.begin_look()
    asking = asyncio.create_task(freshness.staleness({"orders": 7}, 600))
    await until(freshness.wants_look.is_set)
    freshness.end_look()
    freshness.begin_look()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not asking.done()
    freshness.advanced("projector.orders", 5)
    freshness.end_look()
    assert await asking == {"orders": 2}
