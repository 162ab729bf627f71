"""One table that two logs feed: rows are shared safely, deleted, found by another key, and several change at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from tests.dead_letters.journal import dead_lettering
from tests.dead_letters.journal import event as text
from twinlog import PostgresViews, Projection, Recorded, Schema, View
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.log.view_store import ViewStore
from twinlog.testing import MemoryLog, MemoryViews
from twinlog.testing.internals import open_log


class Stay(NamedTuple):
    """A row."""

    stay_id: str
    guest: str
    paid: int


def evolve(stay_id: str, row: Stay | None, event: Recorded, message: Any) -> Stay | None:
    """Booked by a text, paid by a number; a text without a guest ends the stay."""
    row = row or Stay(stay_id, "", 0)
    if isinstance(message, Int64Value):
        return row._replace(paid=row.paid + message.value)
    guest = message.value.partition(":")[2]
    return row._replace(guest=guest) if guest else None


def stays_of(_event: Recorded, message: Any) -> list[str]:
    """A text names the stays before the colon; a payment is for stay a."""
    return message.value.partition(":")[0].split("+") if isinstance(message, StringValue) else ["a"]


STAYS: View[Stay] = View("stays", stays_of, each=evolve, shared=True, events=[Message])


def booked(position: int, said: str) -> Recorded:
    return text(position, said)


def paid(position: int, amount: int) -> Recorded:
    payload = Int64Value(value=amount).SerializeToString()
    return text(position, "a:1")._replace(type="google.protobuf.Int64Value", payload=payload, log="payments")


@pytest.fixture(params=["memory", "postgres"])
async def store(request: pytest.FixtureRequest, postgres_url: str, database: str) -> AsyncIterator[ViewStore]:
    if request.param == "memory":
        yield MemoryViews(MemoryLog("views"))
        return
    async with open_log(postgres_url, database, "views", "tests.read_side.sql") as log:
        yield PostgresViews(log, "tests.read_side.sql", {"stays": Stay})


def projecting(source: str, store: ViewStore, view: View[Stay] = STAYS) -> DeadLettering:
    made = Projection(f"hotel.{source}", [view], store, schema=Schema())
    assert made.store_mistakes() == []
    return dead_lettering(made, store.log)


async def stored(store: ViewStore) -> dict[str, Stay]:
    return dict(await store.rows(STAYS, ["a", "b", "c"]))


async def test_two_logs_change_one_row_and_neither_loses_what_the_other_did(store: ViewStore) -> None:
    rooms, payments = projecting("rooms", store), projecting("payments", store)

    async def book() -> None:
        for n in range(1, 21):
            await rooms.handle([booked(n, f"a:guest {n}")], n - 1)

    async def pay() -> None:
        for n in range(1, 21):
            await payments.handle([paid(n, 10)], n - 1)

    await asyncio.gather(book(), pay())
    assert await stored(store) == {"a": Stay("a", "guest 20", 200)}


async def test_one_event_changes_several_rows(store: ViewStore) -> None:
    await projecting("rooms", store).handle([booked(1, "a+b:ann"), booked(2, "b+c:bob")], 0)
    assert {key: row.guest for key, row in (await stored(store)).items()} == {
        "a": "ann",
        "b": "bob",
        "c": "bob",
    }


@pytest.mark.parametrize("shared", [True, False])
async def test_a_row_is_deleted_and_made_again(store: ViewStore, shared: bool) -> None:
    rooms = projecting("rooms", store, replace(STAYS, shared=shared))
    await rooms.handle([booked(1, "a+b:ann")], 0)
    await rooms.handle([booked(2, "a:")], 1)
    assert set(await stored(store)) == {"b"}
    await rooms.handle([booked(3, "a:bob"), booked(4, "b:"), booked(5, "c:eve"), booked(6, "c:")], 2)
    assert await stored(store) == {"a": Stay("a", "bob", 0)}


async def test_a_row_is_found_by_a_second_key(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "views", "tests.read_side.sql") as log:
        store = PostgresViews(log, "tests.read_side.sql", {"stays": Stay})
        await projecting("rooms", store).handle([booked(1, "a+b:ann"), booked(2, "c:bob")], 0)
        found = [Stay(*row) for row in await store.query("stays_of_guest", "ann")]
    assert found == [Stay("a", "ann", 0), Stay("b", "ann", 0)]


async def test_a_view_that_deletes_without_a_query_for_it_is_told(postgres_url: str, database: str) -> None:
    async with open_log(postgres_url, database, "views", "tests.read_side.sql") as log:
        store = PostgresViews(log, "tests.read_side.sql", {"stays": Stay})
        del store._queries["stays_delete"]
        rooms = projecting("rooms", store)
        await rooms.handle([booked(1, "a:ann")], 0)
        with pytest.raises(Exception, match="no query 'stays_delete'; add it"):
            await rooms.handle([booked(2, "a:")], 1)
