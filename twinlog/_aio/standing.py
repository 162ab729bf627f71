"""Where tasks stand: the frames that a suspended coroutine waits in, found from outside and at no cost to it."""

from __future__ import annotations

import asyncio
import gc
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

_SHOWN_FRAMES = 4
_PARTS_OF_A_PATH = 3
STARTED: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()
"""Since when tasks that somebody owns run, by the loop's time."""


def frames_of(task: asyncio.Task[Any]) -> list[FrameType]:
    """The frames of a task that is suspended, the outermost first; of the one that runs only what it began with."""
    found = []
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = _either(waiting, "cr_frame", "gi_frame", "ag_frame")
        if isinstance(frame, FrameType):
            found.append(frame)
        waiting = _either(waiting, "cr_await", "gi_yieldfrom", "ag_await") or _wrapped(waiting)
    return found


def seconds_since(began: float | None) -> float | None:
    """Seconds since a moment of the running loop's time; None where it is not known, or nothing began."""
    return None if began is None else round(asyncio.get_running_loop().time() - began, 1)


def called_from(frame: FrameType | None) -> list[FrameType]:
    """A frame that runs and those that called it, the outermost first."""
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found[::-1]


def in_words(frames: list[FrameType]) -> str:
    """Frames as text, the innermost first: where it is stuck comes before how it got there."""
    frames = [frame for frame in frames if frame.f_lineno is not None]  # an extension's have none
    said = [_said(frame) for frame in frames[: -_SHOWN_FRAMES - 1 : -1]]
    if len(frames) > _SHOWN_FRAMES:
        said.append(f"… {len(frames) - _SHOWN_FRAMES} more")
    return " < ".join(said) or "not begun, or outside of Python"


def _wrapped(waiting: Any) -> Any:
    """What an extension, such as gRPC's, waits for through a coroutine_wrapper, which itself tells nothing."""
    if type(waiting).__name__ != "coroutine_wrapper":
        return None
    return next(iter(gc.get_referents(waiting)), None)


def _said(frame: FrameType) -> str:
    code = frame.f_code
    return (
        f"{code.co_qualname} ({'/'.join(code.co_filename.split('/')[-_PARTS_OF_A_PATH:])}:{frame.f_lineno})"
    )


def _either(waiting: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(waiting, name, None)) is not None), None)
