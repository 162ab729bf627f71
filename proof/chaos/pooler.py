"""A pgbouncer between services and Postgres, where this machine has one."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import asyncpg

from proof.chaos.disk import NotAvailable
from twinlog.dev import EmbeddedPostgres, StartFailed, free_port, spawn, stop

_READY_SECONDS, _STOP_SECONDS = 20.0, 5.0
_EVERY = "*"
_PATH = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"
"""Distributions put it where only root's PATH looks."""


class PgBouncer:
    """Use as an async context manager; raises NotAvailable where this machine has no pgbouncer, and StartFailed."""

    def __init__(
        self,
        folder: Path,
        postgres: EmbeddedPostgres,
        *,
        mode: str = "session",
        databases: Sequence[str] = (_EVERY,),
    ) -> None:
        """``mode``: its pool_mode. ``databases``: those that it knows; all that the server has by default."""
        self._folder = folder
        self._postgres = postgres
        self._mode = mode
        self._databases = databases
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """As of the server behind it."""
        return self._postgres.url_at(self._port)

    async def __aenter__(self) -> Self:
        program = shutil.which("pgbouncer", path=_PATH)
        if program is None:
            raise NotAvailable("pgbouncer is not installed (Debian, Ubuntu: apt install pgbouncer)")
        self._program = program
        self._user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None  # it refuses to be root
        self._folder.mkdir()
        self._write("users", f'"postgres" "{urlsplit(self.url).password}"\n')
        self._write("settings", self._settings())
        try:
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process:
            await stop(self._process, signal.SIGTERM, _STOP_SECONDS)
        shutil.rmtree(self._folder)

    async def start(self) -> None:
        """Starts it, for the first time or after a kill."""
        with (self._folder / "log").open("ab") as log:
            self._process = await spawn(
                [self._program, self._folder / "settings"], output=log.fileno(), user=self._user
            )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await self._answers():
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise StartFailed(f"pgbouncer: {(self._folder / 'log').read_text()[-400:]}") from error

    async def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        assert self._process is not None
        await stop(self._process, signal.SIGKILL)

    @asynccontextmanager
    async def console(self) -> AsyncIterator[asyncpg.Connection]:
        """Its console, which takes commands as ``PAUSE shop_orders``."""
        connection = await asyncpg.connect(f"{self.url}/pgbouncer", timeout=5)
        try:
            yield connection
        finally:
            connection.terminate()  # a command may be under way

    async def _answers(self) -> bool:
        try:
            async with self.console():
                return True
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False

    def _settings(self) -> str:
        port = self._postgres.port
        return "\n".join(
            [
                "[databases]",
                *(f"{name} = host=127.0.0.1 port={port}" for name in self._databases),
                "[pgbouncer]",
                f"pool_mode = {self._mode}",
                "listen_addr = 127.0.0.1",
                f"listen_port = {self._port}",
                "unix_socket_dir =",
                "auth_type = scram-sha-256",
                f"auth_file = {self._folder / 'users'}",
                "admin_users = postgres",
                "server_login_retry = 1",
                "default_pool_size = 100",
                "max_client_conn = 400",
                "",
            ]
        )

    def _write(self, name: str, text: str) -> None:
        """A file that only the user of pgbouncer may read."""
        path = self._folder / name
        path.touch(0o600)
        path.write_text(text)
        if self._user is not None:
            os.chown(path, self._user, -1)
