"""Events with a routing key, made from a table: the library has none that a suite could use."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from twinlog.v1 import options_pb2

PLAY, MUSIC = 1, 2
"""Shelves: the routing keys are SHELF_PLAY and SHELF_MUSIC."""
_PACKAGE = "twinlog.testing.v1"


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="twinlog/testing/v1/shelves.proto", package=_PACKAGE, syntax="proto3")
    shelf = file.enum_type.add(name="Shelf")
    for number, name in enumerate(("SHELF_UNSPECIFIED", "SHELF_PLAY", "SHELF_MUSIC")):
        shelf.value.add(name=name, number=number)
    for name in ("Borrowed", "Returned"):
        field = file.message_type.add(name=name).field.add(name="shelf", number=1)
        field.type, field.label = FieldDescriptorProto.TYPE_ENUM, FieldDescriptorProto.LABEL_OPTIONAL
        field.type_name = f".{_PACKAGE}.Shelf"
        field.options.Extensions[options_pb2.tag] = True
    file.dependency.append(options_pb2.DESCRIPTOR.name)
    return file


descriptor_pool.Default().AddSerializedFile(_file().SerializeToString())


def _made(name: str) -> Any:
    found = descriptor_pool.Default().FindMessageTypeByName(f"{_PACKAGE}.{name}")
    return message_factory.GetMessageClass(found)


Borrowed = _made("Borrowed")
Returned = _made("Returned")
