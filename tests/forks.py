"""Processes to be killed, as forks of one that has imported all: imports take longer than what is killed.

A module that ends with ``forking`` is run by :func:`forks`: each fork begins before any loop, and before gRPC.
"""

from __future__ import annotations

import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import psutil

from tests import preloaded
from tests.waiting import Ended, until_it_ends


def forking(work: Callable[[], object]) -> None:
    """Works in a fork, or waits for a fork, as each line that comes in says."""
    for line in sys.stdin:
        if pid := int(line):
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
        elif pid := os.fork():
            print(pid, flush=True)
        else:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what it says is no answer
            work()
            os._exit(0)


class Forks:
    """What a process that forks is told."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._running: set[int] = set()

    async def start(self) -> int:
        """Begins one more; gives its id."""
        pid = await self._told(0)
        self._running.add(pid)
        return pid

    async def until(self, true: Callable[[], bool | Awaitable[bool]], *, seconds: float = 60.0) -> None:
        """Returns when the condition holds. Raises Ended where one of them has ended; its words are the test's."""

        async def ended() -> str:
            over = [pid for pid in (self._process.pid, *self._running) if not _runs(pid)]
            return (
                f"of {[*self._running]}, forks of {self._process.pid}, these have ended: {over}"
                if over
                else ""
            )

        await until_it_ends(true, ended, seconds)

    async def ended(self, pid: int) -> int:
        """The exit code of one, as soon as it has ended; -n for signal n."""
        self._running.discard(pid)
        return await self._told(pid)

    async def kill(self, pid: int) -> None:
        """kill -9; returns when it is gone."""
        self._running.discard(pid)
        os.kill(pid, signal.SIGKILL)
        assert await self.ended(pid) == -signal.SIGKILL

    async def close(self) -> None:
        """Kills those that are left, and what they were forked from."""
        for pid in [*self._running]:
            with suppress(ProcessLookupError, Ended):
                await self.kill(pid)
        self._process.kill()
        await self._process.communicate()

    async def _told(self, what: int) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(b"%d\n" % what)
        said = await self._process.stdout.readline()
        if not said:
            raise Ended(f"what they are forked from has ended with {await self._process.wait()}")
        return int(said)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@asynccontextmanager
async def forks(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Forks]:
    """Starts a module that ends with ``forking``; its forks are killed after the block."""
    whole = {**os.environ, **(env or {})}
    process = await preloaded.start(module, *arguments, env=whole, stdin=PIPE, stderr=2)
    made = Forks(process)
    try:
        yield made
    finally:
        await made.close()
