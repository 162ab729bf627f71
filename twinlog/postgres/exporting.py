"""A log in Postgres into a file (:mod:`twinlog.log.log_file`).

Events never change, so they are read page by page while the service runs. What changes (outcomes of requests, timers,
checkpoints, tables of sagas) is read last, in one transaction with the head of the log, and events up to that head go
before it. So a file is one moment of its log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple
from uuid import UUID, uuid4

from twinlog.log.installation import Identity
from twinlog.log.log_file import (
    FORMAT,
    Frame,
    FrameReader,
    FrameWriter,
    LogFileDamaged,
    NotALogFile,
    Seal,
    event_of,
    event_record,
    header_of,
)
from twinlog.log.wire import microseconds
from twinlog.model.errors import AlreadyExists, FailedPrecondition, Unavailable
from twinlog.model.event import Recorded
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import connection_of
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.timeouts import without_timeouts
from twinlog.v1.log_file_pb2 import LogFileHeader, LogRecord


class Part(NamedTuple):
    """What a file has beside events, of one kind: the fields of a record are the columns of a row, in their order."""

    kind: str
    """Which of the records of a LogRecord."""
    query: str
    table: str
    """Where an import puts it."""
    columns: Sequence[str]


PARTS = (
    Part("request", "export_requests", "requests",
         ("request_id", "fingerprint", "reply", "position", "recorded_at")),
    Part("timer", "export_timers", "timers", ("stream_type", "stream_id", "version", "due")),
    Part("checkpoint", "export_checkpoints", "imported_checkpoints",
         ("consumer", "position", "event_position", "event_id")),
    Part("saga_table", "export_saga_tables", "saga_tables",
         ("saga", "version", "fingerprint", "shape", "retired")),
    Part("link", "links", "chain",
         ("number", "kind", "first_position", "last_position", "head", "digest", "marks", "hash")),
    Part("unlinked", "unlinked", "unlinked", ("first_position", "last_position")),
    Part("erasure", "export_erased", "erased_subjects", ("subject", "erased_at")),
)  # fmt: skip

Told = Callable[[int, int], None]
"""Is told how far it is: a position, and the head."""


class FileOfAnotherLog(FailedPrecondition):
    """{file} holds {theirs}, not {ours}; name another file, or the log that it is of."""

    reason = "FILE_OF_ANOTHER_LOG"


class FileIsWhole(AlreadyExists):
    """{file} is whole already, up to event {position}; name another file, or remove it."""

    reason = "FILE_IS_WHOLE"


class Exported(NamedTuple):
    """What an export has written."""

    events: int
    """In the file, and so the position of the last one."""
    resumed: int
    """How many of them an earlier run had written."""
    seal: Seal


class _Begun(NamedTuple):
    """What is there already of a file."""

    header: LogFileHeader
    seal: Seal
    offset: int
    last: Recorded | None


async def export(
    log: PostgresLog,
    identity: Identity | None,
    database: str,
    file: IO[bytes],
    name: str,
    *,
    requests: bool = True,
    told: Told = lambda _position, _head: None,
) -> Exported:
    """Writes all of a log, as it is now, into a file, which is open for reading and writing.

    What an earlier run has written of it is checked and stays. ``requests``: with the outcomes of requests. Raises
    FileOfAnotherLog, FileIsWhole, NotALogFile, Unavailable.
    """
    era = await log.era()
    begun = _begun(file, name, log.name)
    if begun:
        await _refuse_another(begun, log, identity, era, name)
        file.seek(begun.offset)
        file.truncate()
    writer = FrameWriter(begun.seal if begun else Seal())
    if not begun:
        writer.add(_header(log.name, identity, database, era))
        file.write(writer.frame())  # by itself: so it is whole or was never there
    position = resumed = writer.seal.position
    head = await log.head()
    position = await _copy(log, file, writer, position, head, told)
    async with (
        connection_of(log.pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        await without_timeouts(connection)
        head = int(await connection.fetchval(QUERIES["head"]))
        if int(await connection.fetchval(QUERIES["era"])) != era:
            raise Unavailable(f"log {log.name} has been repaired meanwhile; remove {name} and export it anew")
        await _copy(log, file, writer, position, head, told)
        file.write(writer.frame())  # what follows goes into frames of its own, which a later run writes anew
        async for record in _rest(connection, head, requests):
            file.write(writer.add(record))
    end = LogRecord()
    end.end.position, end.end.requests = head, requests
    file.write(writer.add(end) + writer.frame())
    file.flush()
    return Exported(head, resumed, writer.seal)


async def _copy(
    log: PostgresLog, file: IO[bytes], writer: FrameWriter, position: int, head: int, told: Told
) -> int:
    async for events in log.whole_pages(position, head):
        for event in events:
            file.write(writer.add(event_record(event)))
        position = events[-1].position
        told(position, head)
    return position


def _begun(file: IO[bytes], name: str, log: str) -> _Begun | None:
    """What there is of a file up to the last sound frame of events; None where there is nothing.

    Raises NotALogFile where it does not begin as one: that is not written over.
    """
    reader = FrameReader(file, name, "")
    header, last, kept = None, None, (Seal(), 0)
    try:
        for frame in reader.frames():
            header = header or header_of(frame, name)
            if frame.finished:
                raise FileIsWhole(file=name, position=frame.finished.position)
            if not _only_events(frame):
                break
            kept = frame.seal, frame.end
            last = frame.records[-1]
    except LogFileDamaged as damaged:  # from there on it is written anew
        if header is None:
            raise NotALogFile(
                file=name, why="it does not begin as one; name another, or remove it"
            ) from damaged
    if header is None:
        return None
    return _Begun(header, *kept, event_of(last, log) if last and last.HasField("event") else None)


def _only_events(frame: Frame) -> bool:
    return all(record.HasField("event") or record.HasField("header") for record in frame.records)


async def _refuse_another(
    begun: _Begun, log: PostgresLog, identity: Identity | None, era: int, name: str
) -> None:
    header, last = begun.header, begun.last
    ours = f"log {log.name}"
    if header.log != log.name:
        raise FileOfAnotherLog(file=name, theirs=f"log {header.log}", ours=ours)
    if header.log_id != (identity.log_id.bytes if identity else b""):
        raise FileOfAnotherLog(file=name, theirs=f"log {header.log} of another installation", ours=ours)
    same = header.era == era
    if same and last:
        same = [event.event_id for event in await log.read(last.position - 1, 1)] == [last.event_id]
    if not same:
        raise FileOfAnotherLog(
            file=name, theirs=f"another history of log {header.log}", ours="the one that it has now"
        )


def _header(log: str, identity: Identity | None, database: str, era: int) -> LogRecord:
    header = LogFileHeader(format=FORMAT, file_id=uuid4().bytes, log=log, database=database, era=era)
    if identity:
        header.log_id, header.installation = identity.log_id.bytes, identity.installation
    header.began_at_us = microseconds(datetime.now(UTC))
    return LogRecord(header=header)


async def _rest(connection: Connection, head: int, requests: bool) -> AsyncIterator[LogRecord]:
    """What stands beside the events, as of one moment."""
    arguments = {"request": (head,), "link": (0, 2**62)}
    for part in PARTS:
        if part.kind == "request" and not requests:
            continue
        async for row in connection.cursor(QUERIES[part.query], *arguments.get(part.kind, ())):
            yield _record(part.kind, row)


def _record(kind: str, row: Sequence[Any]) -> LogRecord:
    record = LogRecord()
    exported = getattr(record, kind)
    for field, value in zip(exported.DESCRIPTOR.fields, row, strict=True):
        if isinstance(value, datetime):
            setattr(exported, field.name, microseconds(value))
        elif isinstance(value, UUID):
            setattr(exported, field.name, value.bytes)
        elif value is not None:
            setattr(exported, field.name, value)
    return record
