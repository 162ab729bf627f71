"""An event that a newer version of a service writes, and that tells the others nothing once they can read it."""

from __future__ import annotations

from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from twinlog.model.event import Metadata, NewEvent, Recorded
from twinlog.model.routing import NO_ROUTING_KEY

NEWER = Empty.DESCRIPTOR.full_name
UNKNOWN = "twinlog.simulated.OfANewerVersion"
"""What its type looks like to those who do not know it."""


def newer_event(last: Recorded, id: UUID) -> NewEvent:
    """The event behind the last of a stream."""
    return NewEvent(
        last.stream,
        last.version + 1,
        id,
        NEWER,
        b"",
        Metadata(actor="newer"),
        last.partition_key,
        NO_ROUTING_KEY,
    )
