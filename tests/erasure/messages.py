"""Message types with personal fields in every place, made while the tests run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool
from google.protobuf.message import Message

from twinlog import message_class
from twinlog.v1 import options_pb2

_TEXT = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
_ONE = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
_SEVERAL = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
_INT = descriptor_pb2.FieldDescriptorProto.TYPE_INT64


def declare(
    package: str,
    *,
    services: Mapping[str, Sequence[tuple[str, str, str]]] = {},
    **messages: list[tuple[str, str]],
) -> dict[str, type[Message]]:
    """Makes message types: of each its fields as (name, how), where how is of the words text, personal, subject,
    personals, number, any, or the name of a message of the package, with * for several."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    file.dependency.extend([options_pb2.DESCRIPTOR.name, any_pb2.DESCRIPTOR.name])
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for number, (field_name, how) in enumerate(fields, 1):
            field = message.field.add(name=field_name, number=number, label=_ONE, type=_TEXT)
            words = how.split()
            if "several" in words:
                field.label = _SEVERAL
            if "personal" in words:
                field.options.Extensions[options_pb2.personal] = True
            if "subject" in words:
                field.options.Extensions[options_pb2.subject] = True
            if "number" in words:
                field.type = _INT
            of = next((word for word in words if word[0].isupper()), "")
            if of:
                field.type = _MESSAGE
                field.type_name = ".google.protobuf.Any" if of == "Any" else f".{package}.{of}"
    for name, methods in services.items():
        service = file.service.add(name=name)
        for method, request, response in methods:
            types = [f".{package}.{each}" for each in (request, response)]
            service.method.add(name=method, input_type=types[0], output_type=types[1])
    descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return {name: message_class(f"{package}.{name}") for name in messages}
