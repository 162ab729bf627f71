"""The list of sagas: one row per instance, for listing and filtering."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from google.protobuf.message import Message

from saga_orchestrator.credit_saga import CREDIT_SAGA, CREDIT_SAGAS
from shop.orders.v1.events_pb2 import OrderCreated
from shop.sagas.v1.saga_service_pb2 import SagaStatus
from twinlog import PostgresViews, Recorded, View, unpack
from twinlog.rpc import NOT_ENDED, ChosenSagas, SagaCount, SagaKey, SelectedSagas, saga_change
from twinlog.rpc import SagaRow as KernelRow
from twinlog.v1 import saga_pb2 as saga


class SagaRow(NamedTuple):
    """One saga."""

    saga_id: str
    order_id: str
    customer_id: str
    definition_version: int
    status: SagaStatus.ValueType
    reason: str
    started_position: int
    """Position of SagaStarted in the sagas log: the order in which sagas are listed."""
    started_at: datetime
    updated_at: datetime


def evolve(row: SagaRow | None, event: Recorded, message: Any) -> SagaRow:
    if isinstance(message, saga.SagaStarted):
        return _started(event, message)
    assert row is not None, "a saga's stream begins with SagaStarted"
    change = saga_change(row.status, row.reason, message)
    return row._replace(updated_at=event.recorded_at, **change)


def _started(event: Recorded, message: saga.SagaStarted) -> SagaRow:
    order = unpack(message.trigger)
    assert isinstance(order, OrderCreated)
    return SagaRow(
        event.stream.id,
        order.order_id,
        order.customer_id,
        message.version,
        SagaStatus.SAGA_STATUS_RUNNING,
        "",
        event.position,
        event.recorded_at,
        event.recorded_at,
    )


SHOWN = "status"
"""The routing key of the events that change a row; between start and end, a saga that succeeds shows nothing new."""

SAGAS = View(
    "sagas",
    lambda event, _message: event.stream.id,
    evolve,
    created_by=saga.SagaStarted,
    events=[Message],  # with that routing key
)


class SagaViews(PostgresViews):
    """The list of sagas, as the shop's SagaService reads it."""

    async def list(self, status: int, before: int, limit: int) -> Sequence[SagaRow]:
        """Up to ``limit`` sagas that started before a position, newest first; status 0: all."""
        return [SagaRow(*row) for row in await self.query("list_sagas", status, before, limit)]


class KernelList:
    """The same list, as twinlog.v1.SagaService reads it."""

    def __init__(self, views: SagaViews) -> None:
        self._views = views

    async def page(self, chosen: ChosenSagas, before: int, limit: int) -> Sequence[KernelRow]:
        return [
            _row(*row) for row in await self._views.query("page_of_sagas", *_filters(chosen), before, limit)
        ]

    async def oldest(self, chosen: ChosenSagas, after: int, limit: int) -> Sequence[KernelRow]:
        return [
            _row(*row) for row in await self._views.query("oldest_sagas", *_filters(chosen), after, limit)
        ]

    async def select(self, chosen: ChosenSagas, limit: int) -> SelectedSagas:
        rows = await self._views.query("chosen_sagas", *_filters(chosen), limit)
        return SelectedSagas([SagaKey(CREDIT_SAGA.name, row[0]) for row in rows], rows[0][1] if rows else 0)

    async def census(self) -> Sequence[SagaCount]:
        rows = await self._views.query("census_of_sagas", sorted(NOT_ENDED))
        return [SagaCount(CREDIT_SAGA.name, *row) for row in rows]


def _filters(chosen: ChosenSagas) -> tuple[Any, ...]:
    return sorted(chosen.statuses), chosen.started_before, chosen.subject


def _row(saga_id: str, _order_id: str, customer_id: str, *others: Any) -> KernelRow:
    return KernelRow(f"{CREDIT_SAGAS.name}/{saga_id}", CREDIT_SAGA.name, saga_id, customer_id, *others)
