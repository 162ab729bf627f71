"""Processes to be killed, as forks of one that has imported all: imports take longer than what is killed.

A module that ends with ``forking`` is run by :func:`forks`: each fork begins before any loop, and before gRPC.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from stack.topology import ROOT


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

    async def ended(self, pid: int) -> int:
        """The exit code of one, as soon as it has ended; -n for signal n."""
        code = await self._told(pid)
        self._running.remove(pid)
        return code

    async def kill(self, pid: int) -> None:
        """kill -9; returns when it is gone."""
        os.kill(pid, signal.SIGKILL)
        assert await self.ended(pid) == -signal.SIGKILL

    async def close(self) -> None:
        """Kills those that are left, and what they were forked from."""
        for pid in [*self._running]:
            await self.kill(pid)
        self._process.kill()
        await self._process.communicate()

    async def _told(self, what: int) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(b"%d\n" % what)
        return int(await self._process.stdout.readline())


@asynccontextmanager
async def forks(module: str, *arguments: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Forks]:
    """Starts a module that ends with ``forking``; its forks are killed after the block."""
    command = [sys.executable, "-m", module, *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env={**os.environ, **(env or {})}, cwd=ROOT
    )
    made = Forks(process)
    try:
        yield made
    finally:
        await made.close()
