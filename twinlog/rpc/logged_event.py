"""An event of a log as twinlog.v1.InspectionService shows it."""

from __future__ import annotations

from twinlog.model.event import Recorded
from twinlog.model.times import timestamp
from twinlog.rpc.payloads import decoded
from twinlog.v1 import inspection_pb2 as pb


def logged(event: Recorded) -> pb.LoggedEvent:
    """An event, decoded where its type is known here."""
    text, payload = decoded(event.type, event.payload)
    return pb.LoggedEvent(
        address=event.address,
        position=event.position,
        stream=str(event.stream),
        version=event.version,
        event_id=str(event.event_id),
        type=event.type,
        payload=payload if text else None,
        recorded_at=timestamp(event.recorded_at),
        correlation_id=event.metadata.correlation_id,
        cause=event.metadata.causation_id,
        actor=event.metadata.actor,
        partition_key=event.partition_key,
        routing_key=event.routing_key,
        extra=event.metadata.extra,
    )
