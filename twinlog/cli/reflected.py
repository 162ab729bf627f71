"""What a server says of its services by reflection: nothing of it has to be known beforehand."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

_STANDARD = ("grpc.", "twinlog.")
_LEFT_OUT = ("request_id", "page_token", "resume_token", "consistency_token")
"""What a first call does without, and cannot be made up."""
_DEPTH = 3
_WELL_KNOWN = {"Timestamp": "2030-01-01T00:00:00Z", "Duration": "1s"}
"""Those of google.protobuf that are written as texts."""


def commands(address: str) -> Sequence[str]:
    """A grpcurl command for each unary method of a server's own services, with its fields to be filled in."""
    with grpc.insecure_channel(address) as channel:
        return [_command(address, method) for method in _methods(channel)]


def pool_of(channel: grpc.Channel) -> tuple[Any, Sequence[str]]:
    """The descriptors that a server has, and the names of its services."""
    database = ProtoReflectionDescriptorDatabase(channel)
    return DescriptorPool(database), database.get_services()


def _methods(channel: grpc.Channel) -> Iterator[MethodDescriptor]:
    pool, services = pool_of(channel)
    for name in services:
        if not name.startswith(_STANDARD):
            yield from pool.FindServiceByName(name).methods


def _command(address: str, method: Any) -> str:
    request = json.dumps(_sample(method.input_type, _DEPTH), ensure_ascii=False)
    called = f"{method.containing_service.full_name}/{method.name}"
    return shlex.join([_grpcurl(), "-plaintext", "-d", request, address, called])


def _sample(message: Descriptor | Any, depth: int) -> dict[str, Any]:
    """The fields of a message, each with a value of its type."""
    return {
        field.name: _value(field, depth)
        for field in message.fields
        if field.name not in _LEFT_OUT and not (field.message_type and not depth)
    }


def _value(field: FieldDescriptor | Any, depth: int) -> Any:
    if field.message_type and field.message_type.GetOptions().map_entry:
        return {}
    value = _single(field, depth)
    return [value] if isinstance(field.default_value, list) else value


def _single(field: FieldDescriptor | Any, depth: int) -> Any:
    if field.message_type and field.message_type.full_name.startswith("google.protobuf."):
        return _WELL_KNOWN.get(field.message_type.name, {})
    if field.message_type:
        return _sample(field.message_type, depth - 1)
    if field.enum_type:
        return field.enum_type.values[-1].name
    if field.type == field.TYPE_STRING:
        return field.name
    return {field.CPPTYPE_BOOL: False, field.CPPTYPE_STRING: ""}.get(field.cpp_type, 0)


def _grpcurl() -> str:
    """The one on the PATH, else the one in this environment."""
    here = Path(sys.executable).with_name("grpcurl")
    return str(here) if here.exists() and not shutil.which("grpcurl") else "grpcurl"
