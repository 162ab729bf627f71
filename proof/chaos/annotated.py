"""An event type that a newer version of a shop writes, and that the others do not know."""

from __future__ import annotations

from contextlib import suppress

from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto

PACKAGE, NAME = "shop.chaos.v1", "Annotated"
TYPE = f"{PACKAGE}.{NAME}"


def learn() -> None:
    """From now on this process knows the type; the programs' aggregates let it pass."""
    pool = descriptor_pool.Default()
    with suppress(KeyError):
        pool.FindMessageTypeByName(TYPE)
        return
    file = FileDescriptorProto(name="shop/chaos/v1/annotated.proto", package=PACKAGE, syntax="proto3")
    file.message_type.add(name=NAME)
    pool.AddSerializedFile(file.SerializeToString())
