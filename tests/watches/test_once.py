"""What a change is made into: once, for all who are told of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from projector.queries import CustomerQueries
from projector.views.customers import CustomerRow
from shop.queries.v1.customer_query_service_pb2 import WatchCustomerRequest
from tests.controls import new_id
from tests.memory_shop import NoContext
from twinlog import NotFound, Unavailable
from twinlog.rpc import Change, ReadModel

CROWD = 20


class Names:
    """Opens names when it may, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.may = asyncio.Event()
        self.failure: Exception | None = None

    async def open(self, _subject: str, sealed: str) -> str:
        self.asked += 1
        await self.may.wait()
        if self.failure:
            raise self.failure
        return sealed.upper()


class OneChange:
    """Tells everybody of the same change."""

    def __init__(self, change: Change) -> None:
        self._change = change

    async def fresh(self, checks: Any, _request: Any, _context: Any) -> None:
        checks.done()

    async def watch_row(self, *_of: Any) -> AsyncIterator[Change]:
        yield self._change


@pytest.fixture
def names() -> Names:
    return Names()


def watching(names: Names, change: Change) -> list[asyncio.Task[list[str]]]:
    """Watchers of one customer; each gives the names that it is told."""
    reads = cast(ReadModel, OneChange(change))
    others: Any = None
    queries = CustomerQueries(others, reads, others, others, cast(Any, names))

    async def watch() -> list[str]:
        request, context = WatchCustomerRequest(customer_id=new_id()), cast(Any, NoContext())
        return [told.customer.name async for told in queries.WatchCustomer(request, context)]

    return [asyncio.ensure_future(watch()) for _ in range(CROWD)]


def a_change(created_position: int = 1) -> Change:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = CustomerRow(new_id(), "ada", "EUR", 0, 0, created_position, now, now)
    return Change({row.customer_id: row}, [], "token")


async def test_a_name_is_opened_once_for_all_who_watch(names: Names) -> None:
    crowd = watching(names, a_change())
    await asyncio.sleep(0)
    crowd[0].cancel()
    names.may.set()
    leaving, *others = await asyncio.gather(*crowd, return_exceptions=True)
    assert isinstance(leaving, asyncio.CancelledError)
    assert others == [["ADA"]] * (CROWD - 1)
    assert names.asked == 1


async def test_a_failure_reaches_all_of_them(names: Names) -> None:
    names.failure = Unavailable("the keys are away")
    names.may.set()
    found = await asyncio.gather(*watching(names, a_change()), return_exceptions=True)
    assert {type(each) for each in found} == {Unavailable}
    found = await asyncio.gather(*watching(names, a_change(created_position=0)), return_exceptions=True)
    assert all(isinstance(each, NotFound) for each in found)
