"""Points in time as messages carry them."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(time: datetime) -> Timestamp:
    """The message of an aware time."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
