"""Messages of a twin as other versions of Twinlog would write them."""

from __future__ import annotations

from twinlog import Recorded
from twinlog.testing.internals import to_wire
from twinlog.v1.event_pb2 import RecordedEvent


def older(event: Recorded) -> bytes:
    """By a version that knows no actors of events."""
    message = RecordedEvent.FromString(to_wire(event))
    assert message.actor
    message.ClearField("actor")
    return message.SerializeToString(deterministic=True)


def newer(event: Recorded) -> bytes:
    """By a version that knows a field 99 of events, a string."""
    return to_wire(event) + b"\x9a\x06\x03new"
