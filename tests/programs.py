"""Programs that tests start: what they say is kept, and who waits for one learns at once that it has ended."""

from __future__ import annotations

import asyncio
import signal
from asyncio.subprocess import STDOUT, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio

from tests import preloaded
from tests.waiting import RETRIED_SOON, until_it_ends
from twinlog.dev import stop, until_serving

PATIENCE_SECONDS = 200.0
"""For what takes seconds where nothing else is going on."""
_PIPE_SECONDS = 5.0
"""How long the output of a program that has ended is read: something that it started may still hold it open."""
_LAST_LINES = 40


class Program:
    """A process, and the lines that it has said so far on stdout and stderr."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def until(self, true: Callable[[], bool | Awaitable[bool]]) -> None:
        """Returns when the condition holds. Raises Ended where the program has ended, and it does not hold then."""

        async def last_words() -> str:
            return self.last_words if await self._is_over() else ""

        try:
            await until_it_ends(true, last_words, PATIENCE_SECONDS)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {self.last_words}") from error

    async def says(self, words: str, times: int = 1) -> None:
        """Returns when so many of its lines have these words."""
        await self.until(lambda: sum(words in line for line in self.lines) >= times)

    async def serves(self, address: str) -> None:
        """Returns when the gRPC server there is SERVING."""
        await self._meanwhile(until_serving(address))

    async def listens(self, address: str) -> None:
        """Returns when a gRPC server is there, in whatever health."""
        async with grpc.aio.insecure_channel(address, RETRIED_SOON) as channel:
            await self._meanwhile(channel.channel_ready())

    async def _meanwhile(self, waiting: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(waiting)
        try:
            await self.until(task.done)
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        await self.until(self._is_over)
        return await self.process.wait()

    async def ends_at(self, signum: signal.Signals) -> int:
        """Its exit code, once it has ended as the signal tells it to."""
        self.process.send_signal(signum)
        return await self.ended()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    @property
    def last_words(self) -> str:
        """Its exit code, if it has ended, and the end of what it said."""
        code = self.process.returncode
        state = "it still runs" if code is None else f"it ended with {code}"
        return f"{state}, and said:\n{''.join(self.lines[-_LAST_LINES:])}"

    async def close(self) -> None:
        """Ends it, if that is still to be done."""
        await stop(self.process)
        await self._is_over()
        self._reading.cancel()

    async def _is_over(self) -> bool:
        """Whether it has ended; all that it said has been read then."""
        if self.process.returncode is None:
            return False
        await asyncio.wait([self._reading], timeout=_PIPE_SECONDS)
        return True

    async def _read(self) -> None:
        assert self.process.stdout
        while True:
            try:
                line = await self.process.stdout.readline()
            except ValueError:  # longer than the buffer: its beginning is lost
                continue
            if not line:
                return
            self.lines.append(line.decode(errors="replace"))


@asynccontextmanager
async def program(*command: str | Path, env: Mapping[str, str], cwd: Path) -> AsyncIterator[Program]:
    """Starts a program with this environment, in this folder, by :mod:`tests.preloaded`; it ends with the block."""
    async with _ending(await preloaded.spawn(command, env=env, cwd=cwd)) as started:
        yield started


@asynccontextmanager
async def supervisor(
    module: str, *arguments: str, env: Mapping[str, str], cwd: Path
) -> AsyncIterator[Program]:
    """Starts ``python -m module``, which and whose services in that folder are forks; it ends with the block."""
    command = (module, *arguments)
    if preloaded.FORKS:
        command = ("tests.preloaded_process", *command)
    process = await preloaded.start(*command, env=env, cwd=cwd, stderr=STDOUT)
    async with _ending(process) as started:
        yield started


@asynccontextmanager
async def _ending(process: Process) -> AsyncIterator[Program]:
    started = Program(process)
    try:
        yield started
    finally:
        await started.close()
