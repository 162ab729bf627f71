"""The list of sagas: one row per instance, for listing and filtering."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from shop.orders.v1.events_pb2 import OrderCreated
from shop.sagas.v1.saga_service_pb2 import SagaStatus
from twinlog import PostgresViews, Recorded, View, unpack
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
    row = row._replace(updated_at=event.recorded_at)
    match message:
        case saga.SagaStepFailed() | saga.SagaInterrupted() | saga.SagaAborted():
            status, reason = SagaStatus.SAGA_STATUS_COMPENSATING, row.reason or message.reason
            return row._replace(status=status, reason=reason)
        case saga.SagaStepCompensated() | saga.SagaRetryRequested() | saga.SagaStepSkipped():
            running = row.status == SagaStatus.SAGA_STATUS_RUNNING
            return row if running else row._replace(status=SagaStatus.SAGA_STATUS_COMPENSATING)
        case saga.SagaNeedsAttention():
            return row._replace(status=SagaStatus.SAGA_STATUS_NEEDS_ATTENTION)
        case saga.SagaCompleted():
            return row._replace(status=SagaStatus.SAGA_STATUS_COMPLETED)
        case saga.SagaCompensated():
            return row._replace(status=SagaStatus.SAGA_STATUS_COMPENSATED)
    return row


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

SAGAS = View("sagas", lambda event, _message: event.stream.id, evolve, created_by=saga.SagaStarted)


class SagaViews(PostgresViews):
    """The list of sagas, as its query reads it."""

    async def list(self, status: int, before: int, limit: int) -> Sequence[SagaRow]:
        rows = await self.query("list_sagas", status, before, limit)
        return [SagaRow(*row) for row in rows]

    async def select(
        self, status: int, customer_id: str, started_before: datetime, limit: int
    ) -> tuple[Sequence[str], int]:
        """The ids of up to ``limit`` matching sagas, oldest first, and how many match; status 0: all not ended."""
        rows = await self.query("select_sagas", status, customer_id, started_before, limit)
        return [row[0] for row in rows], rows[0][1] if rows else 0
