"""What was expected and what came, side by side, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import ndiff
from typing import Any

from google.protobuf.message import Message


def difference(what: str, came: Sequence[Any], expected: Sequence[Any]) -> str:
    """Lines with - were expected and did not come, lines with + came and were not expected."""
    wanted = [line for each in expected for line in text(each).splitlines()] or ["nothing"]
    got = [line for each in came for line in text(each).splitlines()] or ["nothing"]
    lines = (line.rstrip() for line in ndiff(wanted, got) if not line.startswith("?"))
    return "\n".join([f"{what} (- expected, + came):", *lines])


def text(value: Any) -> str:
    """A value with one field a line."""
    if isinstance(value, Message):
        return "\n".join([value.DESCRIPTOR.name, *(f"    {line}" for line in str(value).splitlines())])
    if isinstance(value, Mapping):
        return "\n".join(line for key in sorted(value) for line in _named(f"{key}: ", value[key]))
    parts = _parts(value)
    if parts is None:
        return repr(value)
    return "\n".join([type(value).__name__, *(f"    {name} = {_short(part)}" for name, part in parts)])


def short(messages: Sequence[Any]) -> str:
    """Values in one line."""
    return ", ".join(map(_short, messages)) or "nothing"


def _named(name: str, value: Any) -> Iterator[str]:
    first, *rest = text(value).splitlines()
    yield f"{name}{first}"
    yield from rest


def _parts(value: Any) -> Sequence[tuple[str, Any]] | None:
    if is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return list(value._asdict().items())
    return None


def _short(value: Any) -> str:
    if isinstance(value, Message):
        return f"{value.DESCRIPTOR.name}({' '.join(str(value).split())})"
    return repr(value)
