"""Messages of any type, inside a state or inside another message."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema


@cache
def message_class(full_name: str) -> type[Message]:
    """The generated class of a message type. Raises KeyError if its module is not imported."""
    return message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(full_name))


def is_repeated(field: Any) -> bool:
    """Whether a field, by its descriptor, holds a list or a map."""
    # Every protobuf from 6.30 on knows this; `is_repeated` came later, and newer ones warn of `label`.
    return bool(field.default_value == [])


def pack(message: Message) -> Packed:
    """The message as a google.protobuf.Any; equal messages give equal bytes."""
    packed = Packed()
    packed.Pack(message, deterministic=True)
    return packed


def unpack(packed: Packed) -> Message:
    """The message in a google.protobuf.Any. Raises KeyError if its type is unknown, or DecodeError."""
    return message_class(packed.TypeName()).FromString(packed.value)


def as_object(message: Message) -> Any:
    """A message as JSON has it. A Struct knows only fractions, and no order: what is whole is given so, by name."""
    from google.protobuf.json_format import MessageToDict  # only what shows messages needs it

    return _whole(MessageToDict(message, preserving_proto_field_name=True))


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _whole(each) for name, each in sorted(value.items())}
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class _AsText:
    """Makes pydantic store a message as base64 of its Any."""

    read: Callable[[Any], Any]
    write: Callable[[Any], str]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core import core_schema  # only snapshots need it

        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(self.write)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "contentMediaType": "application/protobuf"}


def _to_text(message: Message | None) -> str:
    return base64.b64encode(pack(message).SerializeToString(deterministic=True)).decode() if message else ""


def _from_text(value: Any) -> Message | None:
    if value is None or isinstance(value, Message):
        return value
    return unpack(Packed.FromString(base64.b64decode(value))) if value else None


StoredMessage = Annotated[Message | None, _AsText(_from_text, _to_text)]
"""A field of a state that holds a message, and can be stored in snapshots."""


def _bytes_from_text(value: Any) -> bytes:
    message = _from_text(value)
    return message.SerializeToString() if message else b""


def _text_of_bytes(packed: bytes) -> str:
    return _to_text(Packed.FromString(packed))


PackedMessage = Annotated[bytes, _AsText(_bytes_from_text, _text_of_bytes)]
"""The bytes of a google.protobuf.Any, in a third of its memory; in snapshots it is as the Any would be."""
