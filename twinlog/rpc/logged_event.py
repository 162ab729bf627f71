"""An event of a log, and payloads of any type, as clients without the type's descriptor can read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct

from twinlog.model.errors import UndecodableEvent, UnknownEventType
from twinlog.model.event import Recorded
from twinlog.model.messages import message_class
from twinlog.model.schema import Schema
from twinlog.model.times import timestamp
from twinlog.v1 import inspection_pb2 as pb

M = TypeVar("M", bound=Message)


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


def that_fit(messages: Iterable[M], most_bytes: int) -> list[M]:
    """As many of the first as fit, and one at least, where there is any: a client takes messages of 4 MiB."""
    found: list[M] = []
    for message in messages:
        most_bytes -= message.ByteSize()
        if found and most_bytes < 0:
            break
        found.append(message)
    return found


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


def decoded(type_name: str, payload: bytes) -> tuple[str, Struct]:
    """The protobuf JSON of a payload, as text and as an object; a value that is no object is its field "value".

    64-bit integers are strings, as protobuf JSON has them. Both are empty where the type, or the type in a
    google.protobuf.Any inside, is unknown to this process, or where the bytes are none of it.
    """
    struct = Struct()
    try:
        message = message_class(type_name).FromString(payload)
        value = MessageToDict(message, preserving_proto_field_name=True)
    except (KeyError, DecodeError, TypeError):
        return "", struct
    struct.update(value if isinstance(value, dict) else {"value": value})
    return json.dumps(value), struct


def _stored(message: Message) -> tuple[str, bytes]:
    return message.DESCRIPTOR.full_name, message.SerializeToString(deterministic=True)


def _today(message: Message) -> pb.EventToday:
    type, payload = _stored(message)
    return pb.EventToday(type=type, payload=decoded(type, payload)[1])
