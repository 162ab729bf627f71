"""The list of sagas as a pure fold: one row an instance, for listing and choosing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from google.protobuf.message import Message

from twinlog.model.event import Recorded
from twinlog.model.view import View
from twinlog.v1 import saga_pb2 as saga
from twinlog.v1.saga_service_pb2 import SagaStatus

NOT_ENDED: frozenset[SagaStatus.ValueType] = frozenset(
    {
        SagaStatus.SAGA_STATUS_RUNNING,
        SagaStatus.SAGA_STATUS_COMPENSATING,
        SagaStatus.SAGA_STATUS_NEEDS_ATTENTION,
    }
)
"""The statuses of sagas that have not ended."""
ANY = frozenset(set(SagaStatus.values()) - {SagaStatus.SAGA_STATUS_UNSPECIFIED})
SHOWN = "status"
"""The routing key of the events that change a row; between start and end, a saga that succeeds shows nothing new."""


class SagaRow(NamedTuple):
    """One saga."""

    stream: str
    """The key: its stream, as type/id."""
    saga: str
    """The name of its table."""
    saga_id: str
    subject: str
    """The partition key of its events."""
    version: int
    """Of its table."""
    status: SagaStatus.ValueType
    reason: str
    started_position: int
    """Position of SagaStarted in the log: the order in which sagas are listed."""
    started_at: datetime
    updated_at: datetime


class ChosenSagas(NamedTuple):
    """Which sagas; each field narrows them down."""

    statuses: frozenset[SagaStatus.ValueType]
    started_before: datetime
    """At this time or earlier."""
    saga: str = ""
    """Empty: all."""
    subject: str = ""
    """Empty: any."""

    def take(self, row: SagaRow) -> bool:
        """Whether a saga is one of them."""
        return (
            row.status in self.statuses
            and row.started_at <= self.started_before
            and self.saga in ("", row.saga)
            and self.subject in ("", row.subject)
        )


def key(event: Recorded, message: Message) -> str | None:
    """The row that an event changes."""
    return str(event.stream) if message.DESCRIPTOR.file.name == saga.DESCRIPTOR.name else None


def evolve(row: SagaRow | None, event: Recorded, message: Any) -> SagaRow:
    """The row after an event."""
    if isinstance(message, saga.SagaStarted):
        return _started(event, message)
    assert row is not None, "a saga's stream begins with SagaStarted"
    change = saga_change(row.status, row.reason, message)
    return row._replace(updated_at=event.recorded_at, **change)


def saga_change(status: int, reason: str, message: Message) -> Mapping[str, Any]:
    """What an event behind SagaStarted changes in the row of a list of sagas: ``status``, ``reason``, both or neither.

    The status is a SagaStatus of twinlog.v1, or of an enum with the same numbers.
    """
    match message:
        case saga.SagaStepFailed() | saga.SagaInterrupted() | saga.SagaAborted():
            return {"status": SagaStatus.SAGA_STATUS_COMPENSATING, "reason": reason or message.reason}
        case saga.SagaStepCompensated() | saga.SagaRetryRequested() | saga.SagaStepSkipped():
            running = status == SagaStatus.SAGA_STATUS_RUNNING
            return {} if running else {"status": SagaStatus.SAGA_STATUS_COMPENSATING}
        case saga.SagaNeedsAttention():
            return {"status": SagaStatus.SAGA_STATUS_NEEDS_ATTENTION}
        case saga.SagaCompleted():
            return {"status": SagaStatus.SAGA_STATUS_COMPLETED}
        case saga.SagaCompensated():
            return {"status": SagaStatus.SAGA_STATUS_COMPENSATED}
    return {}


def _started(event: Recorded, message: saga.SagaStarted) -> SagaRow:
    return SagaRow(
        str(event.stream),
        message.saga,
        event.stream.id,
        event.partition_key,
        message.version,
        SagaStatus.SAGA_STATUS_RUNNING,
        "",
        event.position,
        event.recorded_at,
        event.recorded_at,
    )


SAGA_INSTANCES: View[SagaRow] = View(
    "saga_instances", key, evolve, created_by=saga.SagaStarted, events=[Message]
)
