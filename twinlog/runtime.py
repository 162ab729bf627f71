"""A process: one event loop, signals, owned background tasks, an ordered end and a telling exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog
import uvloop

from twinlog.backoff import backoff
from twinlog.errors import ConfigurationError
from twinlog.tasks import Tasks

__all__ = ["CRASHED", "MISCONFIGURED", "OK", "STOP_WITHIN", "Main", "Shutdown", "Tasks", "backoff", "run"]

_log = structlog.get_logger(component="runtime")

OK = 0
CRASHED = 1
MISCONFIGURED = 2

STOP_WITHIN = 15.0
"""Seconds that a process has to end in order, once it was asked to; then it is cut off."""


class Shutdown:
    """The one place that knows whether the process is to end, and why."""

    def __init__(self) -> None:
        self._wanted = asyncio.Event()
        self._main = asyncio.current_task()
        self._awaited = False
        self.failure: BaseException | None = None
        """What crashed first, if that is why."""

    @property
    def wanted(self) -> bool:
        """Whether the process is to end."""
        return self._wanted.is_set()

    async def wait(self) -> None:
        """Returns when the process is to end: then leave every block that was entered."""
        self._awaited = True
        await self._wanted.wait()

    def request(self, why: str) -> None:
        """Asks the process to end; asked again, it ends at once."""
        if not self.wanted:
            _log.info("process.stopping", why=why)
        self._end(now=self.wanted)

    def crash(self, task: str, error: BaseException) -> None:
        """Ends the process, exit code 1, because a background task is no more."""
        _log.critical("process.task_crashed", task=task, exc_info=error)
        self.failure = self.failure or error
        self._end(now=False)

    def _end(self, *, now: bool) -> None:
        first = not self.wanted
        self._wanted.set()
        if self._main is None:
            return
        # While the process is still starting nobody awaits the event: cancel what it waits for.
        if now or (first and not self._awaited):
            self._main.cancel()
        elif first:
            asyncio.get_running_loop().call_later(STOP_WITHIN, self._cut_off, self._main)

    def _cut_off(self, main: asyncio.Task[Any]) -> None:
        if not main.done():
            self.failure = self.failure or TimeoutError(f"not stopped within {STOP_WITHIN:g} s")
            _log.error("process.cut_off", after=STOP_WITHIN)
            main.cancel()


Main = Callable[[Shutdown], Coroutine[Any, Any, None]]


def run(main: Main) -> int:
    """Runs a process on uvloop until ``main`` returns, and gives its exit code.

    SIGTERM and SIGINT set the ``Shutdown`` that ``main`` gets, a second one cuts it off. 0: it ended as
    asked; 1: it crashed; 2: a :class:`ConfigurationError`, told in one line on stderr.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_supervise(main))


async def _supervise(main: Main) -> int:
    shutdown = Shutdown()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, shutdown.request, signum.name)
    try:
        await main(shutdown)
    except asyncio.CancelledError:
        if not shutdown.wanted:
            raise
    except Exception as error:
        return _failed(error)
    return OK if shutdown.failure is None else CRASHED


def _failed(error: Exception) -> int:
    cause: BaseException = error
    while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
        cause = cause.exceptions[0]
    if isinstance(cause, ConfigurationError):
        with suppress(BrokenPipeError):
            print(" ".join(str(cause).split()), file=sys.stderr, flush=True)
        return MISCONFIGURED
    _log.critical("process.crashed", exc_info=cause)
    return CRASHED
