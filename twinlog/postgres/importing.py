"""A log in Postgres out of a file (:mod:`twinlog.log.log_file`), frame by frame.

Each frame is one transaction, with the position that the import has come to; so it goes on after any interruption. The
head of the log is set at the very end, with the rest of the file: until then it looks empty to everybody.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import IO, Any, NamedTuple
from uuid import UUID

from google.protobuf.message import Message

from twinlog.log.log_file import Frame, FrameReader, LogFileUnfinished, NotALogFile, Seal, event_of, header_of
from twinlog.log.wire import time_of
from twinlog.model.errors import FailedPrecondition
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Pool, connection_of, fetch
from twinlog.postgres.exporting import PARTS, FileOfAnotherLog, Told
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.repair import EVENT_COLUMNS, row_of
from twinlog.postgres.timeouts import without_timeouts
from twinlog.v1.log_file_pb2 import LogFileEnd, LogFileHeader

_ANOTHER_COPY = (
    "Import another copy of the file, or export the log again. Nothing of a damaged file is imported."
)
_FINISH_EXPORT = "Run its `twinlog export` again, which goes on from there; then import it."


class LogNotEmpty(FailedPrecondition):
    """Database {database} has a log already: {what}. {remedy}"""

    reason = "LOG_NOT_EMPTY"


class LogInUse(FailedPrecondition):
    """A service is running on database {database} ({holder}); stop it, and import again in a few seconds."""

    reason = "LOG_IN_USE"


class Checked(NamedTuple):
    """A file that was read from its beginning to its end, and is whole."""

    header: LogFileHeader
    end: LogFileEnd
    seal: Seal
    places: Sequence[tuple[Seal, int]]
    """The frames that an import may go on after: their seals, and where the next one begins."""


class Imported(NamedTuple):
    """What an import has made."""

    events: int
    resumed: int
    """How many of them an earlier run had brought."""


def checked(file: IO[bytes], name: str) -> Checked:
    """Reads a file to its end. Raises LogFileDamaged, LogFileUnfinished, NotALogFile."""
    reader = FrameReader(file, name, _ANOTHER_COPY)
    header, end = None, None
    places: list[tuple[Seal, int]] = []
    for frame in reader.frames():
        header = header or header_of(frame, name)
        if any(record.WhichOneof("record") is None for record in frame.records):
            raise NotALogFile(
                file=name, why="it has records that this program does not know; use a newer one"
            )
        if not places or _has_events(frame):
            places.append((frame.seal, frame.end))
        end = frame.finished
    if header is None:
        raise NotALogFile(file=name, why="it is empty")
    if end is None:
        raise LogFileUnfinished(file=name, position=reader.seal.position, remedy=_FINISH_EXPORT)
    return Checked(header, end, reader.seal, places)


async def import_log(
    pool: Pool,
    log: str,
    database: str,
    file: IO[bytes],
    name: str,
    found: Checked,
    *,
    told: Told = lambda _position, _head: None,
) -> Imported:
    """Fills an empty log from a file, or goes on with that. ``found``: what the check of the file gave.

    Raises FileOfAnotherLog, LogNotEmpty, LogInUse, Unavailable.
    """
    header, head = found.header, found.end.position
    if header.log != log:
        raise FileOfAnotherLog(file=name, theirs=f"log {header.log}", ours=f"log {log}")
    if header.upto:
        why = f"it is a range of the archive, events {header.after + 1} to {header.upto}"
        raise NotALogFile(file=name, why=why)
    resumed = position = await _begin(pool, database, header)
    seal, offset = next(place for place in reversed(found.places) if place[0].position <= position)
    reader = FrameReader(file, name, _ANOTHER_COPY, seal, offset)
    rest: list[Frame] = []
    for frame in (frames := reader.frames()):
        if not _has_events(frame):
            rest = [frame]
            break
        await _store(pool, log, database, position, frame)
        position = frame.seal.position
        told(position, head)
    await _finish(pool, database, header, found.end, chain(rest, frames))
    return Imported(head, resumed)


def _has_events(frame: Frame) -> bool:
    return any(record.HasField("event") for record in frame.records)


async def _begin(pool: Pool, database: str, header: LogFileHeader) -> int:
    """Up to where the log has been filled from this file; begins where it is empty."""
    file_id = UUID(bytes=header.file_id)
    state = await fetch(pool, QUERIES["import_state"])
    if state and (state[0][0], state[0][2]) == (file_id, False):
        return int(state[0][1])
    if state and not state[0][2]:
        what = f"an import of another file has come to event {state[0][1]}"
        remedy = "Go on with that file, or drop the database and import this one."
        raise LogNotEmpty(database=database, what=what, remedy=remedy)
    ((head, events, checkpoints, requests, holder),) = await fetch(pool, QUERIES["import_refusals"])
    if head or events or checkpoints or requests:
        what = f"it has {head} events" if head else "it has checkpoints of consumers"
        remedy = "Import into a new database, with --database NAME, or rename this one."
        raise LogNotEmpty(database=database, what=what, remedy=remedy)
    if holder:
        raise LogInUse(database=database, holder=holder)
    if not await fetch(pool, QUERIES["import_begin"], file_id):
        raise _at_work(database)
    return 0


def _at_work(database: str) -> LogNotEmpty:
    what, remedy = "another import is running, or has just ended", "Let it come to its end."
    return LogNotEmpty(database=database, what=what, remedy=remedy)


async def _advance(connection: Connection, database: str, before: int, position: int) -> None:
    """The import has come further; until the end of the transaction, no other one has. Raises LogNotEmpty."""
    if await connection.fetchval(QUERIES["import_advance"], before, position) is None:
        raise _at_work(database)


async def _store(pool: Pool, log: str, database: str, before: int, frame: Frame) -> None:
    rows = [row_of(event_of(record, log)) for record in frame.records if record.HasField("event")]
    async with connection_of(pool) as connection, connection.transaction():
        await _advance(connection, database, before, frame.seal.position)
        await connection.copy_records_to_table("events", records=rows, columns=EVENT_COLUMNS)


async def _finish(
    pool: Pool, database: str, header: LogFileHeader, end: LogFileEnd, frames: Iterator[Frame]
) -> None:
    """Brings the rest of the file and the head, in one transaction."""
    async with connection_of(pool) as connection, connection.transaction():
        await without_timeouts(connection)
        await _advance(connection, database, end.position, end.position)
        for frame in frames:
            for kind, _, table, columns in PARTS:
                exported = [
                    getattr(record, kind) for record in frame.records if record.WhichOneof("record") == kind
                ]
                if exported:
                    rows = [_row(each) for each in exported]
                    await connection.copy_records_to_table(table, records=rows, columns=columns)
        await connection.execute(QUERIES["import_finish"], end.position, header.era)
    await fetch(pool, "ANALYZE events")


_STORED: Mapping[str, Callable[[Any], Any]] = {
    "recorded_at_us": time_of,
    "due_us": time_of,
    "erased_at_us": time_of,
    "shape": json.loads,
    "event_position": lambda position: position or None,
    "event_id": lambda id: UUID(bytes=id) if id else None,
}
"""By field: how it is stored, where that is not as it is in the file."""


def _row(exported: Message) -> list[Any]:
    """The row of a record that is not an event."""
    values = {field.name: getattr(exported, field.name) for field in exported.DESCRIPTOR.fields}
    return [_STORED[name](value) if name in _STORED else value for name, value in values.items()]
