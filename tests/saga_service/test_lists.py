"""The list of sagas over both of its adapters, and over the shop's own table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from saga_orchestrator.views import SAGAS, KernelList, SagaRow, SagaViews
from shop.orders.v1.events_pb2 import OrderCreated
from tests.controls import recorded
from twinlog import CheckpointAdvance, Recorded, StreamId
from twinlog.log.saga_list import NEWEST, SagaKey, SagaList, SagasFromTheOldest
from twinlog.memory.saga_list import MemorySagaList
from twinlog.model import saga_list
from twinlog.model.messages import pack
from twinlog.model.saga_list import ANY, NOT_ENDED, SAGA_INSTANCES, ChosenSagas
from twinlog.model.view import fold
from twinlog.postgres.saga_list import PostgresSagaList
from twinlog.testing import START, MemoryLog
from twinlog.testing.internals import open_log
from twinlog.v1 import saga_pb2 as saga
from twinlog.v1 import saga_service_pb2 as pb

MINUTE = timedelta(minutes=1)


def history() -> list[tuple[Recorded, Any]]:
    """Saga a has completed, b runs, c needs attention; each begins a minute after the one before."""
    said: list[tuple[str, Any]] = [
        ("a", started("a", "ada")),
        ("b", started("b", "bob")),
        ("a", saga.SagaCompleted()),
        ("c", started("c", "ada")),
        ("c", saga.SagaAborted(reason="a typo")),
        ("c", saga.SagaNeedsAttention()),
    ]
    events = []
    for position, (id, message) in enumerate(said, 1):
        stream = StreamId("credit_saga", id)
        event = recorded(message, "sagas", position, stream, after=position * MINUTE)
        events.append((event._replace(partition_key="bob" if id == "b" else "ada"), message))
    return events


def started(order: str, customer: str) -> saga.SagaStarted:
    trigger = OrderCreated(order_id=f"order of {order}", customer_id=customer)
    return saga.SagaStarted(saga="credit", version=1, trigger=pack(trigger))


@pytest.fixture(params=["memory", "postgres", "shop"])
async def sagas(request: pytest.FixtureRequest, postgres_url: str, database: str) -> AsyncIterator[SagaList]:
    """A list that has the history."""
    advance = CheckpointAdvance("tests.sagas", 0, 6)
    if request.param == "memory":
        memory = MemorySagaList(MemoryLog("sagas"))
        await memory.commit(fold([SAGA_INSTANCES], history(), {}), advance)
        yield memory
        return
    async with open_log(postgres_url, database, "sagas", "saga_orchestrator.sql") as log:
        if request.param == "postgres":
            own = PostgresSagaList(log)
            await own.commit(fold([SAGA_INSTANCES], history(), {}), advance)
            assert await own.rows(SAGA_INSTANCES, ["credit_saga/b"])
            yield own
        else:
            views = SagaViews(log, "saga_orchestrator.sql", {"sagas": SagaRow})
            await views.commit(fold([SAGAS], history(), {}), advance)
            yield KernelList(views)


def chosen(**fields: Any) -> ChosenSagas:
    return ChosenSagas(**{"statuses": ANY, "started_before": START + 60 * MINUTE, **fields})


async def test_pages_newest_first(sagas: SagaList) -> None:
    rows = await sagas.page(chosen(), NEWEST, 2)
    assert [row.saga_id for row in rows] == ["c", "b"]
    assert [row.saga_id for row in await sagas.page(chosen(), rows[-1].started_position, 2)] == ["a"]
    row = rows[0]
    assert (row.stream, row.saga, row.subject, row.version) == ("credit_saga/c", "credit", "ada", 1)
    assert (row.status, row.reason) == (pb.SAGA_STATUS_NEEDS_ATTENTION, "a typo")
    assert (row.started_at, row.updated_at) == (START + 4 * MINUTE, START + 6 * MINUTE)


async def test_pages_oldest_first(sagas: SagaList) -> None:
    assert isinstance(sagas, SagasFromTheOldest)
    rows = await sagas.oldest(chosen(), 0, 2)
    assert [row.saga_id for row in rows] == ["a", "b"]
    assert [row.saga_id for row in await sagas.oldest(chosen(), rows[-1].started_position, 2)] == ["c"]
    assert [row.saga_id for row in await sagas.oldest(chosen(subject="ada"), 0, 9)] == ["a", "c"]


async def test_chooses_the_oldest_first_and_counts_all(sagas: SagaList) -> None:
    assert await sagas.select(chosen(), 2) == ([SagaKey("credit", "a"), SagaKey("credit", "b")], 3)
    assert (await sagas.select(chosen(statuses=NOT_ENDED), 9)).keys == [
        SagaKey("credit", "b"),
        SagaKey("credit", "c"),
    ]
    assert (await sagas.select(chosen(subject="ada", statuses=NOT_ENDED), 9)).total == 1
    assert (await sagas.select(chosen(started_before=START + 2 * MINUTE), 9)).total == 2
    assert await sagas.select(chosen(subject="eve"), 9) == ([], 0)


def test_events_of_others_change_no_row() -> None:
    event = recorded(OrderCreated(), "sagas", 1, StreamId("order", "o"))
    assert saga_list.key(event, OrderCreated()) is None
