"""Tags: what an event says of itself that consumers can choose by, besides its type.

It is declared in the event's proto, on one field of an enum type:

    SagaMode saga_mode = 3 [(twinlog.v1.tag) = true];

The name of its value is the last token of the twin's subject, so a consumer that wants one value is not sent the
others. Events without a tag are everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from google.protobuf.message import DecodeError, Message

from twinlog.packed import message_class
from twinlog.v1 import options_pb2

UNTAGGED = "-"
"""Stands for the tag of an event that has none."""


def chosen(tag: str) -> Sequence[str]:
    """The tags that a consumer of ``tag`` is sent: its own, and none. The empty tag chooses nothing: any."""
    return (tag, UNTAGGED) if tag else ()


def tag_of(message: Message) -> str:
    """The tag of a message."""
    field, names = _tag_field(type(message))  # type: ignore[arg-type]  # mypy takes a message for its type
    return names[getattr(message, field)] if field else UNTAGGED


def tag_in(type: str, payload: bytes) -> str:
    """The tag of a stored event. One that this process cannot read has none, so that no consumer misses it."""
    try:
        return tag_of(message_class(type).FromString(payload))
    except (KeyError, DecodeError):
        return UNTAGGED


class _Names(dict[int, str]):
    """The names of an enum's values; a value that a newer version knows is its number."""

    def __missing__(self, number: int) -> str:
        return str(number)


@cache
def _tag_field(of: type[Message]) -> tuple[str, Mapping[int, str]]:
    """The field that is the tag, and the names of its values; an empty name where there is none."""
    for field in of.DESCRIPTOR.fields:
        if field.GetOptions().Extensions[options_pb2.tag]:
            assert field.enum_type is not None, f"{field.full_name}: a tag is an enum"
            return field.name, _Names((value.number, value.name) for value in field.enum_type.values)
    return "", {}
