"""Texts with a NUL character: protobuf takes them, Postgres refuses them, and so they can find nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from twinlog.model.errors import InvalidArgument


def refuse_nul(request: Message, data: bytes) -> None:
    """Raises InvalidArgument, which names every text of the request that has one. ``data``: the request's bytes."""
    if b"\0" in data and (wrong := dict.fromkeys(_wrong(request), "has a NUL character; leave it out")):
        raise InvalidArgument(wrong)


def _wrong(value: Any, path: str = "") -> Iterator[str]:
    match value:
        case str() if "\0" in value:
            yield path
        case Message():
            for field, inner in value.ListFields():
                yield from _wrong(inner, f"{path}.{field.name}".lstrip("."))
        case Sequence() if not isinstance(value, str | bytes):
            for each in value:
                yield from _wrong(each, path)
