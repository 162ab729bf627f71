"""Ownership of background tasks, what a cancellation may interrupt, and blocking work in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import Any, Self, TypeVar

from twinlog._aio.standing import STARTED

T = TypeVar("T")

_HEED_SECONDS = 0.1
"""As long as work has to heed a cancellation before it gets another."""


async def to_its_end(work: Awaitable[T]) -> T:
    """Shields the work: a cancelled caller returns at once, the work completes in the background.

    Client libraries clean up first, which takes seconds when a server does not answer; and up to Python 3.11,
    asyncio.wait_for loses a cancellation that arrives together with the answer.
    """
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        working.add_done_callback(_retrieve)
        raise


async def until_it_heeds(work: Coroutine[Any, Any, T]) -> T:
    """Work that a cancellation ends even where it forgets the first ones, as asyncio.wait_for may up to Python 3.11."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            working.cancel()
            await asyncio.wait([working], timeout=_HEED_SECONDS)
        _retrieve(working)
        raise


def _retrieve(work: asyncio.Future[Any]) -> None:
    """Retrieves an outcome whose waiter has left: asyncio would warn about it."""
    if not work.cancelled():
        work.exception()


async def in_own_thread(work: Callable[[], T], ended: Callable[[], None]) -> T:
    """What ``work`` gives or raises; a stop and other such work go on meanwhile.

    ``ended`` is called, by the event loop, once the work has ended, which may be long after the caller was cancelled.
    """
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


class Tasks:
    """Owns background tasks that run until the block ends: then they are cancelled and awaited.

    A task that raises is reported to ``on_crash`` with its name; in a process, that is
    :meth:`twinlog.service.runtime.Shutdown.crash`.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], None]) -> None:
        self._on_crash = on_crash
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs ``work`` in the background."""
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        STARTED[task] = asyncio.get_running_loop().time()
        task.add_done_callback(self._ended)
        return task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        while running := [task for task in self._running if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            error = task.exception()
        elif task.cancelling():
            return
        else:
            error = RuntimeError("a cancellation leaked from inside the task")
        if error is not None:
            self._on_crash(task.get_name(), error)
