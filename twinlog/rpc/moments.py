"""Moments as requests name them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from twinlog.log.past import Moment
from twinlog.rpc.validation import Checks
from twinlog.v1 import moment_pb2 as pb

_MOST_VERSION = 2**31 - 2


def moment_of(checks: Checks, field: str, given: pb.Moment) -> Moment:
    """The moment of a request's field; now where it names none."""
    match given.WhichOneof("at"):
        case "version":
            if not 1 <= given.version <= _MOST_VERSION:
                checks.violate(f"{field}.version", f"must be 1 to {_MOST_VERSION:,}; it is {given.version:,}")
            return Moment(version=given.version)
        case "position":
            if given.position < 1:
                checks.violate(f"{field}.position", f"must be 1 or more; it is {given.position}")
            return Moment(position=given.position)
        case "time":
            return Moment(time=time_of(checks, f"{field}.time", given.time))
    return Moment()


def time_of(checks: Checks, field: str, given: Timestamp) -> datetime | None:
    """The time of a request's field."""
    try:
        return given.ToDatetime(UTC)
    except (ValueError, OverflowError):
        checks.violate(field, "must be a time of the years 1 to 9999, such as 2026-01-31T12:00:00Z")
        return None


def as_message(moment: Moment) -> pb.Moment:
    """A moment as a request names it."""
    message = pb.Moment()
    if moment.time is not None:
        message.time.FromDatetime(moment.time)
    elif moment.position:
        message.position = moment.position
    elif moment.version:
        message.version = moment.version
    return message
