"""Waiting for a condition, with a bound: what tests do in place of sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(true: Callable[[], bool | Awaitable[bool]], *, seconds: float = 60.0) -> None:
    """Returns when the condition holds. Raises TimeoutError, naming it, where it does not in time."""
    try:
        async with asyncio.timeout(seconds):
            while True:
                held = true()
                if held if isinstance(held, bool) else await held:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError as error:
        raise TimeoutError(f"{getattr(true, '__qualname__', true)} did not hold in {seconds:g} s") from error
