"""Waiting for a condition, with a bound: what tests do in place of sleeping."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc

from twinlog import Unavailable
from twinlog.testing.waiting import until

__all__ = ["GOING_AWAY", "RETRIED_SOON", "Ended", "beside", "in_service", "until", "until_it_ends"]

T = TypeVar("T")

GOING_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""What calls to a service on its way down come to; the latter by gRPC itself, where one arrives just at the close."""

RETRIED_SOON = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
"""Options of a channel to a server that may not listen yet: without them gRPC first waits for a second."""


class Ended(AssertionError):
    """What was waited for can come no more; the message says what has ended, and its last words."""


async def until_it_ends(
    true: Callable[[], bool | Awaitable[bool]],
    last_words: Callable[[], Awaitable[str]],
    seconds: float = 60.0,
) -> None:
    """Returns when the condition holds. Raises Ended as soon as there are last words, and it does not hold then."""

    async def held() -> bool:
        said = await last_words()  # looked at first: what was done before counts
        found = true()
        if found if isinstance(found, bool) else await found:
            return True
        if said:
            raise Ended(said)
        return False

    held.__qualname__ = getattr(true, "__qualname__", held.__qualname__)
    await until(held, seconds=seconds)


async def beside(task: asyncio.Task[Any], waiting: Awaitable[T], *, seconds: float = 120.0) -> T:
    """What is waited for while a task works. Raises the task's error, or Ended, where it ends first."""
    wait = asyncio.ensure_future(waiting)
    try:
        async with asyncio.timeout(seconds):
            await asyncio.wait([wait, task], return_when=asyncio.FIRST_COMPLETED)
        if not wait.done():
            raise Ended(f"task {task.get_name()} has ended: {await task!r}")
        return await wait
    finally:
        wait.cancel()
        await asyncio.wait([wait])


async def in_service(call: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> None:
    """Repeats what the server may refuse for a moment, as it refuses a stream while it removes the one before."""

    async def done() -> bool:
        try:
            await call(*arguments)
        except Unavailable:
            return False
        return True

    await until(done)
