"""Blocking work in a thread of its own: a stop and other such work go on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[[], T], ended: Callable[[], None]) -> T:
    """What ``work`` gives or raises. ``ended`` is called, by the event loop, once the work has ended, which may be long
    after the caller was cancelled."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def end(settle: Callable[[], None]) -> None:
        ended()
        if not done.done():
            settle()

    def run() -> None:
        try:
            settle = partial(done.set_result, work())
        except Exception as error:
            settle = partial(done.set_exception, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(end, settle)

    Thread(target=run, name=getattr(work, "__name__", "work"), daemon=True).start()
    return await done
