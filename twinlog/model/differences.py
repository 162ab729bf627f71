"""What changed from one state to another, value by value: for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from twinlog.v1 import inspection_pb2 as pb

_LONG_VALUE = 2_000
"""Characters of a value in a change."""


def differences(before: Any, after: Any, path: str = "") -> Iterator[pb.StateChange]:
    """The values that differ, by path."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in [*before, *(name for name in after if name not in before)]:
            yield from _differ(before, after, name, f"{path}.{name}" if path else str(name))
    elif isinstance(before, list) and isinstance(after, list):
        first, second = dict(enumerate(before)), dict(enumerate(after))
        yield from differences(first, second, path)
    elif before != after:
        yield pb.StateChange(path=path, before=_text(before), after=_text(after))


def _differ(before: dict[Any, Any], after: dict[Any, Any], name: Any, path: str) -> Iterator[pb.StateChange]:
    if name not in after:
        yield pb.StateChange(path=path, before=_text(before[name]))
    elif name not in before:
        yield pb.StateChange(path=path, after=_text(after[name]))
    else:
        yield from differences(before[name], after[name], path)


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG_VALUE else f"{text[:_LONG_VALUE]}…"
