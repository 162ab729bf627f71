"""What a process does at this moment, on ``kill -USR1``: its tasks, calls, queues, cursors and connections.

SIGUSR2 and SIGQUIT, by which tools look at other programs and which would end this one, are answered alike.

Two handlers serve each signal, one inside the other, so that it is answered in whatever state the process is:

- Python's own runs between two instructions of the main thread: from the loop while that is idle, and inside of the
  very code that keeps the loop from going on while it hangs. It only reads, and writes past the logger, whose lock the
  interrupted code may hold.
- faulthandler's, written in C, runs at once and first: it shows the stacks of all threads also where none of them
  runs Python any more, as in a library that does not return.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import UnsupportedOperation
from types import FrameType
from typing import Any, NamedTuple

import structlog

from twinlog._aio.standing import STARTED, called_from, frames_of, in_words, seconds_since
from twinlog.rpc.handlers import call_in

EVENT = "process.dump"
"""The event of every line of a dump; ``part`` says what the line is about."""
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
"""The first is the one that is documented; tools that want to look at other programs send the others."""
_MOST_LINES_OF_TASKS = 200
_UNNAMED = re.compile(r"Task-\d+")

Line = Mapping[str, Any]
Tells = Callable[[], Iterable[tuple[str, Line]]]
"""Gives the parts that somebody knows of, each with what is to be said of it. It reads, and changes nothing."""


class Dump:
    """Writes what the process does to stderr, when it is asked by one of the signals."""

    def __init__(self) -> None:
        self._tells: list[Tells] = []

    def add(self, tells: Tells) -> None:
        """Tells this as well from now on."""
        self._tells.append(tells)

    @contextmanager
    def on_signal(self) -> Iterator[None]:
        """Answers the signals inside the block; nothing happens outside of the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {signum: signal.signal(signum, self._signalled) for signum in SIGNALS}
        with suppress(
            UnsupportedOperation, AttributeError, ValueError, RuntimeError
        ):  # stderr may be no file
            for signum in SIGNALS:
                faulthandler.register(signum, all_threads=True, chain=True)
        try:
            yield
        finally:
            for signum, handler in before.items():
                faulthandler.unregister(signum)
                signal.signal(signum, handler)

    def _signalled(self, _signum: int, frame: FrameType | None) -> None:
        for part, line in self.lines(frame):
            _write(part, line)

    def lines(self, frame: FrameType | None = None) -> Iterator[tuple[str, Line]]:
        """The parts of the process, each with what is said of it; ``frame``: where the main thread is."""
        loop = asyncio._get_running_loop()
        running = asyncio.current_task(loop) if loop else None
        yield (
            "process",
            {
                "pid": os.getpid(),
                "running": running.get_name() if running else None,
                "stands": in_words(called_from(frame)),
            },
        )
        for tells in self._tells:
            try:
                yield from tells()
            except Exception as error:  # the rest is wanted all the more
                yield "process", {"missing": repr(error)}
        if loop:
            yield from _tasks(asyncio.all_tasks(loop), running)
        yield "end", {}


class _Told(NamedTuple):
    """What several tasks have in common."""

    part: str
    name: str
    stands: str


def _tasks(
    tasks: Iterable[asyncio.Task[Any]], running: asyncio.Task[Any] | None
) -> Iterator[tuple[str, Line]]:
    """The tasks, those that are alike as one: a thousand calls stand at the same place."""
    counts = Counter[_Told]()
    oldest: dict[_Told, float] = {}
    for task in tasks:
        frames = frames_of(task)
        call, since = call_in(frames), STARTED.get(task)
        name, began = call or (_name(task), since)
        told = _Told("call" if call else "task", name, "it runs" if task is running else in_words(frames))
        counts[told] += 1
        if (seconds := seconds_since(began)) is not None:
            oldest[told] = max(seconds, oldest.get(told, 0.0))
    for told, count in sorted(counts.items(), key=lambda pair: (pair[0].part, pair[0].name))[
        :_MOST_LINES_OF_TASKS
    ]:
        yield (
            told.part,
            {"name": told.name, "count": count, "seconds": oldest.get(told), "stands": told.stands},
        )
    if (more := len(counts) - _MOST_LINES_OF_TASKS) > 0:
        yield "task", {"name": f"and {more} others"}


def _name(task: asyncio.Task[Any]) -> str:
    if not _UNNAMED.fullmatch(task.get_name()):
        return task.get_name()
    return str(getattr(task.get_coro(), "__qualname__", task.get_name()))


def _write(part: str, line: Line) -> None:
    """Writes one line in the form of the log, and past its lock."""
    event: Any = {
        "event": EVENT,
        "part": part,
        **{key: value for key, value in line.items() if value is not None},
    }
    for processor in structlog.get_config()["processors"]:
        event = processor(None, "warning", event)
    left = f"{event}\n".encode(errors="backslashreplace")
    with suppress(OSError, ValueError, AttributeError):  # nobody reads it any more
        file = sys.stderr.fileno()
        while left:
            left = left[os.write(file, left) :]
