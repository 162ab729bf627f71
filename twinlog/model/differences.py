"""What changed from one state to another, value by value: for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from twinlog.v1 import inspection_pb2 as pb

_LONG_VALUE = 2_000
"""Characters of a value in a change."""
_NOTHING = object()


def differences(before: Any, after: Any, path: str = "") -> Iterator[pb.StateChange]:
    """The values that differ, by path; the text of one that is not there is empty."""
    if isinstance(before, list) and isinstance(after, list):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            inside = f"{path}.{name}" if path else str(name)
            yield from differences(before.get(name, _NOTHING), after.get(name, _NOTHING), inside)
    elif before != after:
        yield pb.StateChange(path=path, before=_text(before), after=_text(after))


def _text(value: Any) -> str:
    if value is _NOTHING:
        return ""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG_VALUE else f"{text[:_LONG_VALUE]}…"
