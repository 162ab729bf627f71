"""Events as messages of the twin, byte for byte."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from uuid import UUID

from google.protobuf.message import DecodeError

from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.model.ids import uuid_of
from twinlog.v1.event_pb2 import RecordedEvent

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_wire(event: Recorded) -> bytes:
    """The twin's message for an event; equal events give equal bytes."""
    wire = RecordedEvent(
        position=event.position,
        stream_type=event.stream.type,
        stream_id=event.stream.id,
        version=event.version,
        event_id=event.event_id.bytes,
        type=event.type,
        payload=event.payload,
        recorded_at_us=_microseconds(event.recorded_at),
        correlation_id=event.metadata.correlation_id,
        causation_id=event.metadata.causation_id,
        traceparent=event.metadata.traceparent,
        actor=event.metadata.actor,
        partition_key=event.partition_key,
        tag=event.routing_key,
    )
    if event.metadata.extra:
        wire.extra.update(event.metadata.extra)
    return wire.SerializeToString(deterministic=True)


def event_id_of(data: bytes, position: int) -> UUID | None:
    """The id of the event in a twin's message; None where it is not an event at this position."""
    try:
        wire = RecordedEvent.FromString(data)
        return uuid_of(wire.event_id) if wire.position == position else None
    except (DecodeError, ValueError):
        return None


def from_wire(subject: str, data: bytes) -> Recorded:
    """The event in a twin's message.

    Raises google.protobuf.message.DecodeError if the bytes are not an event.
    """
    wire = RecordedEvent.FromString(data)
    try:
        event_id = uuid_of(wire.event_id)
        recorded_at = _time(wire.recorded_at_us)
    except (ValueError, OverflowError, OSError) as error:
        raise DecodeError(str(error)) from error
    metadata = Metadata(wire.correlation_id, wire.causation_id, wire.traceparent, wire.actor)
    if wire.extra:
        metadata = metadata._replace(extra=dict(wire.extra))
    return Recorded(
        subject.partition(".")[0],
        wire.position,
        StreamId(wire.stream_type, wire.stream_id),
        wire.version,
        event_id,
        wire.type,
        wire.payload,
        metadata,
        wire.partition_key,
        wire.tag,
        recorded_at,
    )


# The events of a transaction share one time and follow each other, so remembering the last one is enough.


@lru_cache(1)
def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


@lru_cache(1)
def _time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC)  # exact until the year 2255
