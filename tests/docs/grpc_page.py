"""docs/reference/grpc.md, made from the protos and their comments: ``python -m tests.docs.grpc_page`` writes it."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from tempfile import TemporaryDirectory

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from stack.topology import ROOT

PAGE = ROOT / "docs" / "reference" / "grpc.md"
_HEAD = """# gRPC services

Made from the protos and their comments; a test compares the two. Every process also serves `grpc.health.v1.Health` and
reflection, so `grpcurl` needs no files. Errors: [reasons](error-reasons.md).
"""
_PROTOS = ROOT / "protos"
_MESSAGES, _SERVICES = 4, 6
"""The fields of a FileDescriptorProto that a path into it begins with."""
_FIELDS = _METHODS = 2
Path = tuple[int, ...]


def page() -> str:
    """The page."""
    files = [file for file in _described() if file.service]
    own_first = sorted(files, key=lambda file: (not file.package.startswith("twinlog."), file.name))
    return "\n".join([_HEAD, *(line for file in own_first for line in _file(file))])


def fields() -> Iterator[tuple[str, str, str]]:
    """Each field of each message: the message's full name, the field's, and what is said of it."""
    for file in _described():
        said = _comments(file)
        for number, message in enumerate(file.message_type):
            for index, field in enumerate(message.field):
                comment = said.get((_MESSAGES, number, _FIELDS, index), "")
                yield f"{file.package}.{message.name}", field.name, comment


def _described() -> Sequence[FileDescriptorProto]:
    names = [str(path.relative_to(_PROTOS)) for path in sorted(_PROTOS.rglob("*.proto"))]
    with TemporaryDirectory() as folder:
        out = f"{folder}/image"
        includes = [f"-I{_PROTOS}", f"-I{sysconfig.get_path('purelib')}"]
        options = [*includes, "--include_source_info", f"--descriptor_set_out={out}"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *names], check=True)
        with open(out, "rb") as image:
            return FileDescriptorSet.FromString(image.read()).file


def _file(file: FileDescriptorProto) -> Iterator[str]:
    said = _comments(file)
    for number, service in enumerate(file.service):
        yield f"## {file.package}.{service.name}\n"
        yield f"{said.get((_SERVICES, number), '')}\n"
        yield "| method | request | response | |"
        yield "| --- | --- | --- | --- |"
        for index, method in enumerate(service.method):
            asked = f"{'stream of ' * method.client_streaming}{_short(method.input_type)}"
            given = f"{'stream of ' * method.server_streaming}{_short(method.output_type)}"
            comment = said.get((_SERVICES, number, _METHODS, index), "")
            yield f"| `{method.name}` | {asked} | {given} | {comment} |"
        yield ""
    for number, message in enumerate(file.message_type):
        if message.field:
            yield from _message(message, said, (_MESSAGES, number))


def _message(message: DescriptorProto, said: Mapping[Path, str], path: Path) -> Iterator[str]:
    yield f"**{message.name}**: {said.get(path, '')}\n"
    yield "| field | type | |"
    yield "| --- | --- | --- |"
    for index, field in enumerate(message.field):
        yield f"| `{field.name}` | {_type(field)} | {said.get((*path, _FIELDS, index), '')} |"
    yield ""


def _type(field: FieldDescriptorProto) -> str:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    name = _short(field.type_name) if field.type_name else kind
    return f"{name}, repeated" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def _short(name: str) -> str:
    name = name.removeprefix(".")
    return name if name.startswith("google.type.") else name.rpartition(".")[2]


def _comments(file: FileDescriptorProto) -> Mapping[Path, str]:
    return {
        tuple(place.path): " ".join(place.leading_comments.split()).replace("|", r"\|")
        for place in file.source_code_info.location
        if place.leading_comments
    }


if __name__ == "__main__":
    PAGE.write_text(page())
