"""``twinlog export`` and ``twinlog import``: a log of a database as a file, and back (docs/how-to/backup.md)."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from twinlog.log.log_file import zstd
from twinlog.model.errors import ConfigurationError, FailedPrecondition
from twinlog.postgres.connection import open_database
from twinlog.postgres.exporting import export
from twinlog.postgres.identity import identity
from twinlog.postgres.importing import checked, import_log
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.repair import databases, has_log, opened

_TOLD_EVERY_SECONDS = 2.0


class NoSuchFile(FailedPrecondition):
    """{file} cannot be opened: {why}."""

    reason = "NO_SUCH_FILE"


class FileFails(FailedPrecondition):
    """{file} cannot be read or written: {why}. See to it, and run the command again: it goes on from where it was."""

    reason = "FILE_FAILS"


class FileBusy(FailedPrecondition):
    """Another export is writing {file}; let it come to its end, or name another file."""

    reason = "FILE_BUSY"


class Options(NamedTuple):
    """What is asked for."""

    log: str
    file: Path
    postgres_url: str
    database: str = ""
    """That of the log; empty: the one that the server, or the file, shows."""
    requests: bool = True
    """With the outcomes of requests."""


class Done(NamedTuple):
    """What was done."""

    log: str
    database: str
    events: int
    resumed: int
    """How many of them were there already."""
    bytes: int
    """Size of the file."""
    digest: str
    """That of the last seal, in hexadecimal: it proves the whole file."""
    seconds: float


Say = Callable[[str], None]


async def export_log(options: Options, say: Say = lambda _line: None) -> Done:
    """Writes a log into a file, or goes on with one that was interrupted.

    Raises ConfigurationError, FailedPrecondition with what is wrong with the file, and Unavailable.
    """
    zstd()
    began = time.monotonic()
    database = await database_of(options.log, options.postgres_url, options.database)
    async with opened(options.postgres_url, database) as pool:
        log = PostgresLog(pool, options.log)
        own = await identity(pool, options.log)
        name = str(options.file)
        with _opened(options.file, "r+b" if options.file.exists() else "x+b") as file:
            _refuse_another_writer(file, name)
            made = await export(log, own, database, file, name, requests=options.requests, told=_telling(say))
            await asyncio.to_thread(os.fsync, file.fileno())
            size = file.tell()
    seconds = time.monotonic() - began
    return Done(log.name, database, made.events, made.resumed, size, made.seal.digest.hex(), seconds)


async def import_file(options: Options, say: Say = lambda _line: None) -> Done:
    """Checks a file, and fills an empty log from it, or goes on where that was interrupted.

    The database is made where it is missing. Raises the same as :func:`export_log`.
    """
    zstd()
    began = time.monotonic()
    name = str(options.file)
    with _opened(options.file, "rb") as file:
        found = await asyncio.to_thread(checked, file, name)
        say(f"{name} is whole: {found.end.position:,} events of log {found.header.log}.")
        database = options.database or found.header.database
        tables = "twinlog.postgres.sql"
        async with open_database(options.postgres_url, database, tables, size=2, waits=False) as pool:
            resumed = await import_log(pool, options.log, database, file, name, found, told=_telling(say))
    seconds, size = time.monotonic() - began, options.file.stat().st_size
    digest = found.seal.digest.hex()
    return Done(options.log, database, found.end.position, resumed, size, digest, seconds)


async def database_of(log: str, postgres_url: str, asked: str) -> str:
    """The database of a log: the one that is asked for or, where none is, the only one of the server that has a log.

    Raises ConfigurationError and Unavailable.
    """
    if asked and await has_log(postgres_url, asked):
        return asked
    found = await databases(postgres_url)
    names = ", ".join(found)
    if asked:
        raise ConfigurationError(
            f"There is no database {asked} with a log on this server; it has {names or 'none'}"
        )
    if len(found) == 1:
        return found[0]
    said = f"those of this server that have a log: {names}" if found else "none of this server has a log"
    raise ConfigurationError(f"Say which database log {log} is in, with --database NAME; {said}")


@contextmanager
def _opened(path: Path, mode: str) -> Iterator[IO[bytes]]:
    try:
        file: IO[bytes] = path.open(mode)
    except OSError as error:
        raise NoSuchFile(file=path, why=error.strerror or str(error)) from error
    try:
        with file:
            yield file
    except OSError as error:  # what servers raise is Unavailable by now
        raise FileFails(file=path, why=error.strerror or str(error)) from error


def _refuse_another_writer(file: IO[bytes], name: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed
    except BlockingIOError as error:
        raise FileBusy(file=name) from error


def _telling(say: Say) -> Callable[[int, int], None]:
    """Says now and then how far it is, how fast, and how long it still takes."""
    began = last = time.monotonic()
    start: int | None = None

    def told(position: int, head: int) -> None:
        nonlocal last, start
        now = time.monotonic()
        start = position if start is None else start
        if now - last >= _TOLD_EVERY_SECONDS and position > start:
            last, rate = now, (position - start) / (now - began)
            left = (head - position) / rate
            say(f"{position:,} of {head:,} events, {rate:,.0f} a second, {left:.0f} s left")

    return told
