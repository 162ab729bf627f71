"""Tests about time, in a time that passes only while there is nothing to do: no machine is too slow for them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from twinlog.testing.simulation.loop import SimulatedLoop


def simulated(work: Coroutine[Any, Any, None]) -> None:
    """Runs a test in virtual time."""
    loop: Any = SimulatedLoop()  # type: ignore[abstract]
    task = loop.start(work)
    task.add_done_callback(lambda _done: loop.stop())
    loop.run(10_000.0)
    loop.close()
    task.result()


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test, in virtual time."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        simulated(test(*args, **kwargs))

    return run
