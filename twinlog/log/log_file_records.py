"""Values of a log as records of its file, and back."""

from __future__ import annotations

from twinlog.log.wire import from_wire, to_wire
from twinlog.model.event import Recorded
from twinlog.v1.log_file_pb2 import LogRecord


def event_record(event: Recorded) -> LogRecord:
    """The record of an event: the same message that its twin carries."""
    record = LogRecord()
    record.event.MergeFromString(to_wire(event))
    return record


def event_of(record: LogRecord, log: str) -> Recorded:
    """The event of a record. Raises google.protobuf.message.DecodeError."""
    return from_wire(log, record.event.SerializeToString())
