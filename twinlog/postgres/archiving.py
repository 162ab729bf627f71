"""Moves old events of a log in Postgres into its archive: range by range, each proved before a row is taken out.

A range is written into one file, read back from there, compared with the table event by event, and noted with its
digests. Only then does the table lose rows of it: those of streams that have ended, and those that a snapshot of their
stream covers. What a living stream still needs stays where it is, until a later run finds that it has ended, and that
the file is still there as it was noted.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from hashlib import sha256
from typing import IO, Any, NamedTuple, cast
from uuid import UUID, uuid5

from twinlog.log.archive import ArchivedRange, filesystem, protocols, prove, refuse_copies, why
from twinlog.log.installation import Identity
from twinlog.log.log_file import (
    FORMAT,
    FrameReader,
    FrameWriter,
    LogFileDamaged,
    LogFileUnfinished,
    NotALogFile,
    event_of,
    event_record,
    header_of,
)
from twinlog.model.errors import FailedPrecondition, TwinlogError, Unavailable
from twinlog.model.event import Recorded
from twinlog.postgres.archive import range_of
from twinlog.postgres.connection import connection_of, fetch
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.named_queries import QUERIES
from twinlog.v1.log_file_pb2 import LogFileEnd, LogFileHeader, LogRecord

RANGE = 100_000
"""Positions in a file, by default."""
_FRAME_BYTES = 256 * 1024
"""Smaller frames than an export's: one is read for a single event."""
_READ_BYTES = 2**20
_STEP = 5_000
"""Positions that are taken out in one transaction: appends wait for it, some 50 ms."""
_PAUSE_SECONDS = 0.05
"""Between two of them."""
_FILES = UUID("0c9d2a34-6e6a-4f0c-8a4d-5a2f7f6f0b11")
"""The namespace of the ids of files (RFC 9562, version 5): the same range makes the same file."""

Say = Callable[[str], None]


class ArchiveDiffers(FailedPrecondition):
    """{file} does not have events {first} to {last} of log {log} as they are in the table: {why}. Nothing was taken
    out. Try again, or choose another place."""

    reason = "ARCHIVE_DIFFERS"


class ArchiveBusy(FailedPrecondition):
    """Another `twinlog archive` is at work on log {log}; let it come to its end."""

    reason = "ARCHIVE_BUSY"


class Rule(NamedTuple):
    """What goes into the archive."""

    before: datetime
    """Events from before then, in whole ranges."""
    ends: Sequence[str] = ()
    """Types of streams that end; sagas say by themselves when they have ended."""
    range: int = RANGE
    """Positions in a file."""


class Archived(NamedTuple):
    """What a run has done."""

    ranges: int
    events: int
    """In the files of these ranges."""
    removed: int
    """Rows that left the table, also of earlier ranges."""
    bytes: int
    """Size of the new files."""
    upto: int
    """The end of the archive."""


async def archive(log: PostgresLog, identity: Identity, url: str, rule: Rule, say: Say) -> Archived:
    """Archives every whole range that is old enough, and takes out of the table what it no longer needs.

    Interrupted, the next run goes on. Raises ArchiveDiffers, ArchiveBusy, ConfigurationError, Unavailable.
    """
    refuse_copies(url)
    async with _alone(log):
        head = await log.head()
        after = int((await fetch(log.pool, QUERIES["archived_upto"]))[0][0])
        ((young,),) = await fetch(log.pool, QUERIES["archive_young"], after, rule.before)
        old = min(head, young or head) - 1  # the newest event is what appends go by
        ranges = size = 0
        proved: set[int] = set()
        while after + rule.range <= old:
            made = await _range(log, identity, url, after + 1, after + rule.range)
            after, ranges, size = made.last, ranges + 1, size + made.size
            proved.add(made.first)
            say(f"Events {made.first:,} to {made.last:,} are in {made.file} ({made.size:,} bytes).")
        removed = await _remove(log, rule, proved, say)
        return Archived(ranges, ranges * rule.range, removed, size, after)


@asynccontextmanager
async def _alone(log: PostgresLog) -> AsyncIterator[None]:
    async with connection_of(log.pool) as connection:
        if not await connection.fetchval(QUERIES["archive_lock"]):
            raise ArchiveBusy(log=log.name)
        try:
            yield
        finally:
            await connection.execute(QUERIES["archive_unlock"])


async def _range(log: PostgresLog, identity: Identity, url: str, first: int, last: int) -> ArchivedRange:
    file = f"{url.rstrip('/')}/{log.name}-{identity.log_id}/{first:012}-{last:012}.twinlog"
    files, path = filesystem(file)
    with _outages(file):
        of = await _found(log, file, first, last)
        if of is None:
            with await asyncio.to_thread(_opened, files, path) as out:
                written = _Digested(out)
                await _write(log, identity, written, first, last)
        await asyncio.to_thread(_sync, files, path)
        if of is None:
            of = await _proved(log, file, first, last, written.digest)
    noted = (of.first, of.last, last - first + 1, *of[2:])
    await fetch(log.pool, QUERIES["archive_rules_out_older"])
    await fetch(log.pool, QUERIES["archive_range"], *noted)
    return of


async def _found(log: PostgresLog, file: str, first: int, last: int) -> ArchivedRange | None:
    """What is noted of a file that is there already, whole; None: it is to be written.

    It is never written over: a copy of this database, as a restored one, has files of the same names, and may have
    taken rows out of its table for them. Raises ArchiveDiffers where it has other events.
    """
    try:
        return await _proved(log, file, first, last, None)
    except (FileNotFoundError, PermissionError, LogFileDamaged, LogFileUnfinished, NotALogFile):
        return None  # object stores refuse to tell who may not list that there is none


def _opened(files: Any, path: str) -> Any:
    """A file to be written, in a folder that is made where the place has folders and it is missing.

    A bucket is not made: a wrong name would have a copy of the log there, and rows leave the table.
    """
    try:
        return files.open(path, "wb")
    except OSError:
        files.makedirs(files._parent(path), exist_ok=True)
        return files.open(path, "wb")


class _Digested:
    """A file that is written, or read, from its beginning to its end; the digest tells its bytes from all others."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = sha256()

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        return data

    def seek(self, offset: int) -> int:
        return self._file.seek(offset)


@contextmanager
def _outages(file: str) -> Iterator[None]:
    """Raises what a file system raises, which may be anything, as Unavailable."""
    try:
        yield
    except TwinlogError:
        raise
    except Exception as error:
        raise Unavailable(f"{file} cannot be written and read back: {why(error, file)}") from error


async def _write(log: PostgresLog, identity: Identity, out: _Digested, first: int, last: int) -> None:
    writer = FrameWriter(frame_bytes=_FRAME_BYTES)
    writer.add(LogRecord(header=_header(log.name, identity, first, last)))
    out.write(writer.frame())
    async for event in _events(log, first, last):
        out.write(writer.add(event_record(event)))
    out.write(writer.frame())
    writer.add(LogRecord(end=LogFileEnd(position=last)))
    out.write(writer.frame())


def _header(log: str, identity: Identity, first: int, last: int) -> LogFileHeader:
    file_id = uuid5(_FILES, f"{identity.log_id}/{first}-{last}").bytes
    return LogFileHeader(
        format=FORMAT,
        file_id=file_id,
        log=log,
        log_id=identity.log_id.bytes,
        installation=identity.installation,
        after=first - 1,
        upto=last,
    )


async def _events(log: PostgresLog, first: int, last: int) -> AsyncIterator[Recorded]:
    async for events in log.whole_pages(first - 1, last):
        for event in events:
            yield event


async def _proved(log: PostgresLog, file: str, first: int, last: int, written: bytes | None) -> ArchivedRange:
    """What is noted of a file: read from where it lies now, and compared with the table and with what was written.

    A store may give the bytes of an earlier run for a while: the same events in frames that begin elsewhere.
    ``written``: their digest; None: by another run. Raises LogFileUnfinished where that one did not come to its end.
    """
    files, path = filesystem(file)
    offsets: list[int] = []
    firsts: list[int] = []
    digests: list[bytes] = []

    def differs(why: str) -> ArchiveDiffers:
        return ArchiveDiffers(file=file, log=log.name, first=first, last=last, why=why)

    source = _events(log, first, last)
    with await asyncio.to_thread(files.open, path, "rb") as stored:
        read = _Digested(stored)
        reader = FrameReader(cast(IO[bytes], read), file, "Archive it again.")
        finished = None
        for frame in reader.frames():
            if not digests:
                header_of(frame, file)
                digests.append(frame.seal.digest)
                continue
            if finished := frame.finished:
                break
            offsets.append(frame.offset)
            firsts.append(frame.records[0].event.position)
            digests.append(frame.seal.digest)
            for record in frame.records:
                if event_of(record, log.name) != await anext(source, None):
                    raise differs(f"event {record.event.position} is another one")
        if not finished and written is None:
            raise LogFileUnfinished(file=file, position=reader.seal.position, remedy="Archive it again.")
        if not finished or await anext(source, None) is not None:
            raise differs("it ends too early")
        while read.read(_READ_BYTES):
            pass
        if written is not None and read.digest != written:
            raise differs("the store gives other bytes than were written")
        size, digest = reader.offset, reader.seal.digest
    return ArchivedRange(first, last, file, size, digest, offsets, firsts, digests)


async def _remove(log: PostgresLog, rule: Rule, proved: set[int], say: Say) -> int:
    """Takes out of the table what it no longer needs, in small steps; first it reads files that earlier runs made."""
    removed = 0
    for first, last in await fetch(log.pool, QUERIES["archive_left"], _STEP):
        step = first, last, rule.before, list(rule.ends)
        [row] = await fetch(log.pool, QUERIES["archived_at"], first)
        of = range_of(tuple(row))
        if of.first not in proved and await _takes_any(log, step):
            await asyncio.to_thread(prove, of, log.name)
            proved.add(of.first)
        removed += int((await fetch(log.pool, QUERIES["remove_archived"], *step))[0][0])
        await asyncio.sleep(_PAUSE_SECONDS)
    say(f"{removed:,} events left the table.")
    return removed


async def _takes_any(log: PostgresLog, step: Sequence[Any]) -> bool:
    """Whether a step would take rows out."""
    async with connection_of(log.pool) as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            return bool(await connection.fetchval(QUERIES["remove_archived"], *step))
        finally:
            await transaction.rollback()


def _sync(files: Any, path: str) -> None:
    """Rows are taken out once a file is there: on a disk of ours, see that it is."""
    if "file" not in protocols(files):
        return
    for each in (path, os.path.dirname(path)):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
