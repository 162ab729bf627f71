"""Waiting for a condition, with a bound: what tests do in place of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

_LEAST_SECONDS, _MOST_SECONDS = 0.01, 0.1
_RESTS = 4
"""Between two looks it rests for so many times as long as a look takes: what is waited for needs the processors."""


async def until(true: Callable[[], bool | Awaitable[bool]], *, seconds: float = 60.0) -> None:
    """Returns when the condition holds. Raises TimeoutError, naming it, where it does not in time.

    The error also names the tasks that have failed meanwhile: what is waited for may have been theirs to do.
    """
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks()
    try:
        async with asyncio.timeout(seconds):
            while True:
                began = loop.time()
                held = true()
                if held if isinstance(held, bool) else await held:
                    return
                took = loop.time() - began
                await asyncio.sleep(min(max(_LEAST_SECONDS, _RESTS * took), _MOST_SECONDS))
    except TimeoutError as error:
        late = f"{getattr(true, '__qualname__', true)} did not hold in {seconds:g} s"
        raise TimeoutError("; ".join([late, *_failures(tasks)])) from error


def _failures(tasks: Iterable[asyncio.Task[Any]]) -> Iterator[str]:
    for task in tasks:
        if task.done() and not task.cancelled() and (failure := task.exception()):
            yield f"task {task.get_name()} failed: {failure!r}"
