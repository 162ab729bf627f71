"""A process: one event loop, signals, owned background tasks, an ordered end and a telling exit code."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog
import uvloop

from twinlog._aio.retrying import backoff
from twinlog._aio.tasks import Tasks
from twinlog.model.errors import ConfigurationError

__all__ = ["CRASHED", "MISCONFIGURED", "OK", "STOP_WITHIN", "Main", "Shutdown", "Tasks", "backoff", "run"]

_log = structlog.get_logger(component="runtime")

OK = 0
CRASHED = 1
MISCONFIGURED = 2

STOP_WITHIN = 15.0
"""Seconds that a process has to end in order, once it was asked to; then it is cut off."""


class Shutdown:
    """The one place that knows whether the process is to end, and why."""

    def __init__(self, main: asyncio.Task[Any]) -> None:
        self._wanted = asyncio.Event()
        self._main = main
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
        if self.wanted:
            self._cut_off(f"{why} again")
            return
        _log.info("process.stopping", why=why)
        self._end()

    def crash(self, task: str, error: BaseException) -> None:
        """Ends the process, in order, because a background task is no more."""
        if _misconfiguration(error) is None:
            _log.critical("process.task_crashed", task=task, exc_info=error)
        self.failure = self.failure or error
        if not self.wanted:
            self._end()

    def _end(self) -> None:
        self._wanted.set()
        asyncio.get_running_loop().call_later(STOP_WITHIN, self._cut_off, f"{STOP_WITHIN:g} seconds passed")
        if not self._awaited:
            # The process is still starting: cancel whatever it waits for.
            self._main.cancel()

    def _cut_off(self, why: str) -> None:
        _log.error("process.cut_off", why=why)
        self.failure = self.failure or TimeoutError(why)
        self._main.cancel()


Main = Callable[[Shutdown], Coroutine[Any, Any, None]]


def run(main: Main) -> int:
    """Runs a process on uvloop until ``main`` returns, and gives its exit code.

    SIGTERM and SIGINT set the ``Shutdown`` that ``main`` gets, a second one cuts it off. 0: it ended as
    asked; 1: it crashed; 2: a :class:`ConfigurationError`, told in one line on stderr.
    """
    # What is imported stays: never look at it again. A batch makes thousands of objects that reference counting
    # frees; looking for cycles every 700 of them, as is the default, only costs.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_supervise(main))


async def _supervise(main: Main) -> int:
    task = asyncio.current_task()
    assert task is not None
    shutdown = Shutdown(task)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, shutdown.request, signum.name)
    try:
        await main(shutdown)
    except asyncio.CancelledError:
        if not shutdown.wanted:
            raise
    except Exception as error:
        if _misconfiguration(error) is None:
            _log.critical("process.crashed", exc_info=error)
        shutdown.failure = shutdown.failure or error
    return _exit_code(shutdown.failure)


def _exit_code(failure: BaseException | None) -> int:
    if failure is None:
        return OK
    misconfiguration = _misconfiguration(failure)
    if misconfiguration is None:
        return CRASHED
    with suppress(BrokenPipeError):
        print(" ".join(str(misconfiguration).split()), file=sys.stderr, flush=True)
    return MISCONFIGURED


def _misconfiguration(error: BaseException) -> ConfigurationError | None:
    """The configuration error that an error is, alone or wrapped by task groups."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ConfigurationError) else None
