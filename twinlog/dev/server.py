"""A server that runs as a child process and keeps its data in a folder."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from twinlog.dev.process import StartFailed, end_leftover, send, stop, tail

_LOOK_EVERY_SECONDS = 0.02


class EmbeddedServer(ABC):
    """Use as an async context manager: outside of the block the server is stopped."""

    def __init__(
        self,
        name: str,
        log: Path,
        *,
        pid_file: Path,
        sign: Path,
        shuts_down_at: signal.Signals,
        ready_seconds: float,
    ) -> None:
        """``name``: as it stands in errors. ``log``: where it writes its output. ``pid_file``: where it writes its
        process id, and ``sign``: what its command line contains. ``ready_seconds``: how long it may take to start.
        """
        self._name = name
        self._log = log
        self._pid_file = pid_file
        self._sign = sign
        self._shuts_down_at = shuts_down_at
        self._ready_seconds = ready_seconds
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._started.pid

    async def __aenter__(self) -> Self:
        self.end_leftover()
        await self._prepare()
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts the server and waits until it answers. Raises StartFailed."""
        with self._log.open("ab") as log:
            self._process = await self._spawn(log.fileno())
        try:
            async with asyncio.timeout(self._ready_seconds):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise StartFailed(f"{self._name} ended at start:\n{self._last_words()}")
                    await asyncio.sleep(_LOOK_EVERY_SECONDS)
        except TimeoutError as error:
            raise StartFailed(
                f"{self._name} did not answer in {self._ready_seconds:g} s:\n{self._last_words()}"
            ) from error

    async def stop(self) -> None:
        """Shuts down: sessions end, and all that was acknowledged is kept."""
        if self._process:
            await stop(self._process, self._shuts_down_at)

    async def kill(self) -> None:
        """Sends SIGKILL, as in a crash, and waits for the end."""
        send(self._started, signal.SIGKILL)
        await self._started.wait()

    async def ended(self) -> None:
        """Waits until the server has ended, and raises StartFailed then."""
        code = await self._started.wait()
        raise StartFailed(f"{self._name} went down ({code}):\n{self._last_words()}")

    def end_leftover(self) -> None:
        """Ends the server that a killed run left in this folder."""
        end_leftover(self._pid_file, str(self._sign), self._shuts_down_at)

    def _last_words(self) -> str:
        return tail(self._log) or f"{self._log} is empty: is the disk full?"

    @property
    def _started(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    @abstractmethod
    async def _prepare(self) -> None:
        """Makes the folder and what the server needs in it. Raises StartFailed."""

    @abstractmethod
    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        """Starts the process, which writes to this file descriptor. Raises StartFailed."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Whether it serves. Raises StartFailed where it never will."""
