"""An event of a log as twinlog.v1.InspectionService shows it."""

from __future__ import annotations

from google.protobuf.message import Message

from twinlog.model.errors import UndecodableEvent, UnknownEventType
from twinlog.model.event import Recorded
from twinlog.model.schema import Schema
from twinlog.model.times import timestamp
from twinlog.rpc.payloads import decoded
from twinlog.v1 import inspection_pb2 as pb


def logged(event: Recorded, schema: Schema) -> pb.LoggedEvent:
    """An event, decoded where its type is known here, and what it is read as by this schema."""
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
        read_as=read_as(event, schema),
    )


def read_as(event: Recorded, schema: Schema) -> pb.ReadAs | None:
    """What a schema reads an event as; None where that is what is stored."""
    if not schema.upcasts(event):
        return None
    try:
        messages = schema.decode(event)
    except UnknownEventType:
        return None
    except UndecodableEvent as error:
        return pb.ReadAs(problem=str(error))
    if [*map(_stored, messages)] == [(event.type, event.payload)]:
        return None
    return pb.ReadAs(events=[_today(message) for message in messages])


def _stored(message: Message) -> tuple[str, bytes]:
    return message.DESCRIPTOR.full_name, message.SerializeToString(deterministic=True)


def _today(message: Message) -> pb.EventToday:
    type, payload = _stored(message)
    return pb.EventToday(type=type, payload=decoded(type, payload)[1])
