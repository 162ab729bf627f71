"""One of each kind of upcaster, over the well-known types: what was written, and the numbers that it means today."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import EnumValueDescriptorProto
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import (
    BoolValue,
    BytesValue,
    FloatValue,
    Int32Value,
    Int64Value,
    StringValue,
    UInt32Value,
    UInt64Value,
)

from shop.orders.v1.events_pb2 import OrderCreated
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from twinlog import Schema, Upcast

Optional = EnumValueDescriptorProto
"""A type with a field that knows whether it is there."""
CHOREOGRAPHED = "SAGA_MODE_CHOREOGRAPHY"


def of_mode(old: BytesValue) -> OrderCreated:
    """An order, of a mode that was no routing key then."""
    mode = SAGA_MODE_CHOREOGRAPHY if old.value.startswith(b"c") else SAGA_MODE_ORCHESTRATION
    return OrderCreated(order_id=old.value[1:].decode(), saga_mode=mode)


SCHEMA = Schema(
    [
        Upcast.rename(Int32Value, Int64Value, by=lambda old: Int64Value(value=old.value)),
        Upcast.rename(UInt32Value, Int32Value, by=lambda old: Int32Value(value=old.value)),
        Upcast.split(
            StringValue, [Int64Value], lambda old: [Int64Value(value=int(each)) for each in old.value.split()]
        ),
        Upcast.merge(
            {
                UInt64Value: lambda old: Int64Value(value=old.value),
                FloatValue: lambda old: Int64Value(value=int(old.value)),
            },
            Int64Value,
        ),
        Upcast.default(Optional, number=lambda old: int(old.name)),
        Upcast.drop(BoolValue),
        Upcast.rename(BytesValue, OrderCreated, by=of_mode),
    ]
)


class Kind(NamedTuple):
    """One kind of upcaster."""

    written: Callable[[int], Message]
    """The old event that means a number, and perhaps the one after it."""
    means: Callable[[int], Sequence[int]] = lambda number: [number]
    today: type[Message] = Int64Value


KINDS: Mapping[str, Kind] = {
    "rename": Kind(lambda number: Int32Value(value=number)),
    "rename twice": Kind(lambda number: UInt32Value(value=number)),
    "split": Kind(
        lambda number: StringValue(value=f"{number} {number + 1}"), lambda number: [number, number + 1]
    ),
    "merge one": Kind(lambda number: UInt64Value(value=number)),
    "merge other": Kind(lambda number: FloatValue(value=number)),
    "default": Kind(lambda number: Optional(name=str(number)), today=Optional),
    "drop": Kind(lambda _number: BoolValue(value=True), lambda _number: []),
}


def number_in(message: Any) -> int:
    """What an event says today."""
    return int(message.number if isinstance(message, Optional) else message.value)
