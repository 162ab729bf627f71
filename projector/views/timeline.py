"""Every event that belongs to an order's saga, from all logs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from google.protobuf.message import Message

from twinlog import Recorded, View

_NO_SAGAS = {"dead_letters", "given_up"}
"""The types of the streams that are about a consumer or a repair, not about a saga."""


class TimelineRow(NamedTuple):
    """One event. Where a saga's event does not name its order, it is found by its stream."""

    log: str
    position: int
    order_id: str
    stream_id: str
    type: str
    payload: bytes
    recorded_at: datetime
    causation_id: str
    correlation_id: str
    actor: str


def key(event: Recorded, message: Any) -> str | None:
    """The event's own address; None where it concerns no order."""
    of_saga = event.log == "sagas" and event.stream.type not in _NO_SAGAS
    order_id = getattr(message, "order_id", "")
    return f"{event.log}/{event.position}" if of_saga or order_id else None  # its address, without a call


def evolve(_row: TimelineRow | None, event: Recorded, message: Any) -> TimelineRow:
    metadata = event.metadata
    return TimelineRow(
        event.log,
        event.position,
        getattr(message, "order_id", ""),
        event.stream.id,
        event.type,
        event.payload,
        event.recorded_at,
        metadata.causation_id,
        metadata.correlation_id,
        metadata.actor,
    )


TIMELINE = View("timeline", key, evolve, append_only=True, events=[Message])
