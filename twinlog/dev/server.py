"""A server that runs as a child process and keeps its data in a folder."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

from twinlog.dev.process import StartFailed, end_leftover, send, stop, tail

_LOOK_EVERY_SECONDS = 0.02
_RECENT_SECONDS = 30.0
"""What a server that went down wrote before that long, or twice as long, says nothing of its end."""
_FROM_ELSEWHERE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""Signals that somebody else sends: the server has nothing to say of them."""


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
        self._said_before = 0
        """Bytes of its log that are of earlier runs, or older than the last minute."""

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
            self._said_before = log.tell()
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
        """Waits until the server has ended, and raises StartFailed then, with what it said of late."""
        ended = asyncio.ensure_future(self._started.wait())
        self._said_before = size = self._log_size()
        try:
            while not (await asyncio.wait([ended], timeout=_RECENT_SECONDS))[0]:
                self._said_before, size = size, self._log_size()
        finally:
            ended.cancel()
        code = ended.result()
        said = "" if -code in _FROM_ELSEWHERE else tail(self._log, since=self._said_before)
        raise StartFailed(
            f"{self._name} {_ending(code)}, so everything else was stopped. What was recorded is kept: start again. "
            f"Its log is {self._log}" + (f"; of late it said:\n{said}" if said else "")
        )

    def end_leftover(self) -> None:
        """Ends the server that a killed run left in this folder."""
        end_leftover(self._pid_file, str(self._sign), self._shuts_down_at)

    def _last_words(self) -> str:
        return tail(self._log, since=self._said_before) or f"{self._log} has nothing of it: is the disk full?"

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

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


def _ending(code: int) -> str:
    """How a process ended, by its return code."""
    if code >= 0:
        return f"ended by itself, with code {code}"
    name = signal.Signals(-code).name if -code in [*signal.Signals] else f"signal {-code}"
    if -code not in _FROM_ELSEWHERE:
        return f"crashed, by {name}"
    memory = ", by hand or because memory ran out" if -code == signal.SIGKILL else ""
    return f"was ended by {name} from elsewhere{memory}"
