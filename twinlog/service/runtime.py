"""A process: one event loop, signals, an orderly stop, and an exit code that says how it ended."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

import structlog
import uvloop

from twinlog.model.errors import ConfigurationError
from twinlog.service.dump import Dump

_log = structlog.get_logger(component="runtime")

OK = 0
CRASHED = 1
MISCONFIGURED = 2

STOP_SECONDS = 15.0
"""How long an orderly stop may take; then it is cut off."""
_ECHO_SECONDS = 0.05
"""A signal right behind the first is the same one: uvloop tells it twice where it comes together with another one."""


class Shutdown:
    """Whether the process is to stop, and why."""

    def __init__(self, main: asyncio.Task[Any], dump: Dump | None = None) -> None:
        self._wanted = asyncio.Event()
        self._asked_at = 0.0
        self._main = main
        self._awaited = False
        self.failure: BaseException | None = None
        """The first crash, if one is the reason."""
        self.dump = dump or Dump()
        """What the process tells of itself when it is asked by SIGUSR1."""

    @property
    def wanted(self) -> bool:
        """Whether the process is to stop."""
        return self._wanted.is_set()

    async def wait(self) -> None:
        """Returns once the process is to stop; then leave every block that was entered."""
        self._awaited = True
        await self._wanted.wait()

    def request(self, why: str) -> None:
        """Asks the process for an orderly stop; asked again, it stops at once."""
        now = asyncio.get_running_loop().time()
        if self.wanted:
            if now - self._asked_at > _ECHO_SECONDS:
                self._cut_off(f"{why} again")
            return
        self._asked_at = now
        _log.info("process.stopping", why=why)
        self._end()

    def crash(self, task: str, error: BaseException) -> None:
        """Stops the process in an orderly way, because a background task has failed."""
        if _misconfiguration(error) is None:
            _log.critical("process.task_crashed", task=task, exc_info=error)
        self.failure = self.failure or error
        if not self.wanted:
            self._end()

    def _end(self) -> None:
        self._wanted.set()
        asyncio.get_running_loop().call_later(STOP_SECONDS, self._cut_off, f"{STOP_SECONDS:g} seconds passed")
        if not self._awaited:
            # It is still starting: cancel what it waits for.
            self._main.cancel()

    def _cut_off(self, why: str) -> None:
        _log.error("process.cut_off", why=why)
        self.failure = self.failure or TimeoutError(why)
        self._main.cancel()


Main = Callable[[Shutdown], Coroutine[Any, Any, None]]


def run(main: Main) -> int:
    """Runs ``main`` on uvloop until it returns, and gives the exit code; :func:`twinlog.run` says which, and what
    signals do."""
    use_all_descriptors()
    yield_to_others()
    # What is imported stays, so the collector need not look at it. A batch makes thousands of objects that reference
    # counting frees; a search for cycles every 700 of them, the default, is wasted.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    dump = Dump()
    with dump.on_signal(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_supervise(main, dump))


def use_all_descriptors() -> None:
    """Raises the soft limit of open files to the hard one: 1,024, as is usual, is less than connections may take.

    It is low for the sake of programs that use select(), which this one does not.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # not every system takes its own hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def yield_to_others() -> None:
    """Has the threads of this process wait for their turn where others run, as Linux lets programs that do much.

    A call takes the turns of several threads. Where each interrupts the one that woke it, a busy machine changes
    threads far more often; where it waits, more has come meanwhile, which is done together (ADR 53).
    """
    if sys.platform == "linux":
        with suppress(
            OSError
        ):  # a sandbox may forbid it; musl, the C library of Alpine, has neither of the two
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def heeded_signals() -> Sequence[signal.Signals]:
    """Those that ask a process to stop, without the hangup of its terminal where nohup has it ignored."""
    ignores_hangups = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *(() if ignores_hangups else (signal.SIGHUP,))]


async def _supervise(main: Main, dump: Dump) -> int:
    task = asyncio.current_task()
    assert task is not None
    shutdown = Shutdown(task, dump)
    loop = asyncio.get_running_loop()
    for signum in heeded_signals():
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
    """The ConfigurationError that an error is, or that task groups have wrapped in it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ConfigurationError) else None
