"""Kinds of poison, how each gets into a log, and what mends it."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple
from uuid import uuid4

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.wrappers_pb2 import StringValue

from twinlog import Log, Metadata, StreamId
from twinlog.log.ports import ReadRequest
from twinlog.testing import START
from twinlog.testing.internals import AnyAggregate, Appended, Batch, NewEvent

_NUMBERS = count(1)


class Kind(NamedTuple):
    """A kind of event that a stream cannot be read over."""

    name: str
    type: str
    payload: bytes
    said: str
    """What is said of it."""

    def __str__(self) -> str:
        return self.name


def unknown_type() -> Kind:
    """A newer version writes a type that this program does not know; :func:`learn` teaches it."""
    name = f"poison.v1.Annotated{next(_NUMBERS)}"
    return Kind("unknown type", name, b"", f"{name} is unknown to this program")


def unreadable_payload() -> Kind:
    """The bytes are no message of their type."""
    name = StringValue.DESCRIPTOR.full_name
    return Kind("unreadable payload", name, b"\xff\xff", f"cannot be parsed as {name}")


def no_evolve() -> Kind:
    """The type is known, and evolve fails over it: of itself, or with :func:`failing`."""
    name = StringValue.DESCRIPTOR.full_name
    return Kind("evolve raises", name, StringValue(value="poison").SerializeToString(), "evolve fails over")


KINDS = [unknown_type, unreadable_payload, no_evolve]


def learn(kind: Kind) -> None:
    """From now on the program knows the type, as the version does that wrote it."""
    package, _, name = kind.type.rpartition(".")
    file = FileDescriptorProto(name=f"{kind.type}.proto", package=package, syntax="proto3")
    file.message_type.add(name=name)
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


async def poison(log: Log, stream: StreamId, kind: Kind, metadata: Metadata = Metadata()) -> int:
    """Appends an event of a kind to a stream, as another program would; gives its version."""
    [found] = await log.load([ReadRequest(stream)])
    last = found.events[-1]
    new = NewEvent(
        stream,
        last.version + 1,
        uuid4(),
        kind.type,
        kind.payload,
        metadata,
        last.partition_key,
        last.routing_key,
    )
    assert isinstance(await log.append(Batch(START, {stream: last.version}, [new])), Appended)
    return new.version


def patched(aggregate: AnyAggregate, **functions: Any) -> AnyAggregate:
    """Another aggregate of the same name, some of whose functions differ."""
    return replace(aggregate, **functions)


def fails(*_arguments: object) -> Any:
    """A function with a defect."""
    raise LookupError("a defect")
