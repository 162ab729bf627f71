"""The calls that are open now, found in the frames of their tasks: to count them one by one would cost every call."""

from __future__ import annotations

from collections.abc import Sequence
from types import FrameType

from twinlog.rpc.handlers import Boundary
from twinlog.rpc.streams import Stream

_CALLS = tuple(f"{method.__qualname__}.<locals>.call" for method in (Boundary._unary, Boundary._streaming))


def call_in(frames: Sequence[FrameType]) -> tuple[str, float | None] | None:
    """The method that a task's frames serve, and since when where that is known, by the loop's time; or None."""
    for frame in frames:
        if frame.f_code.co_qualname in _CALLS:
            stream = frame.f_locals.get("stream")
            return str(frame.f_locals["method"]), stream.began if isinstance(stream, Stream) else None
    return None
