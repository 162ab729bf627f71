"""Points in time as messages carry them."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 24 * 60 * 60


def timestamp(time: datetime) -> Timestamp:
    """The message of an aware time. A quarter of what ``Timestamp.FromDatetime`` takes."""
    since = time - _EPOCH
    return Timestamp(seconds=since.days * _DAY + since.seconds, nanos=since.microseconds * 1_000)
