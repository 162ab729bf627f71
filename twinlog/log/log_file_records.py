"""Values of a log as records of its file, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from twinlog.log.wire import from_wire, to_wire
from twinlog.model.event import Recorded
from twinlog.v1.log_file_pb2 import LogRecord

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def event_record(event: Recorded) -> LogRecord:
    """The record of an event: the same message that its twin carries."""
    record = LogRecord()
    record.event.MergeFromString(to_wire(event))
    return record


def event_of(record: LogRecord, log: str) -> Recorded:
    """The event of a record. Raises google.protobuf.message.DecodeError."""
    return from_wire(log, record.event.SerializeToString())


def microseconds(time: datetime) -> int:
    """Since the Unix epoch."""
    return (time - _EPOCH) // _MICROSECOND


def time_of(microseconds: int) -> datetime:
    """The time so many microseconds after the Unix epoch."""
    return _EPOCH + microseconds * _MICROSECOND
