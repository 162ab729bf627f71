"""Events as the log holds them and as the twin carries them."""

from __future__ import annotations

import zlib
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from google.protobuf.message import Message

from twinlog.model.routing import routing_key_of

BUCKETS = 64


class StreamId(NamedTuple):
    """Names one stream of a log: one aggregate."""

    type: str
    id: str

    def __str__(self) -> str:
        return f"{self.type}/{self.id}"


class Metadata(NamedTuple):
    """What is known about an event besides what it says."""

    correlation_id: str = ""
    """Common to everything that one request set off."""
    causation_id: str = ""
    """What caused it: an event, as ``log/position``, or a call, as ``rpc/Method``."""
    traceparent: str = ""
    """The W3C trace context of the call that set it off."""
    actor: str = ""
    """Who did it."""


class NewEvent(NamedTuple):
    """An event about to be appended."""

    stream: StreamId
    version: int
    event_id: UUID
    type: str
    payload: bytes
    metadata: Metadata
    partition_key: str
    routing_key: str

    @classmethod
    def of(
        cls,
        stream: StreamId,
        version: int,
        event_id: UUID,
        message: Message,
        metadata: Metadata,
        partition_key: str,
    ) -> NewEvent:
        """The event that a message is: its type, bytes and tag are the message's."""
        payload = message.SerializeToString(deterministic=True)
        name = message.DESCRIPTOR.full_name
        return cls(stream, version, event_id, name, payload, metadata, partition_key, routing_key_of(message))


class Recorded(NamedTuple):
    """An event of a log."""

    log: str
    position: int
    stream: StreamId
    version: int
    event_id: UUID
    type: str
    payload: bytes
    metadata: Metadata
    partition_key: str
    """Events of a log that share it are handled in order, whatever becomes of others; it decides the bucket."""
    routing_key: str
    """What consumers may choose it by, besides its type (:mod:`twinlog.model.routing`)."""
    recorded_at: datetime

    @property
    def subject(self) -> str:
        """The twin's subject: ``<log>.<bucket>.<EventType>.<tag>``."""
        short = self.type.rpartition(".")[2]
        return f"{self.log}.{bucket_of(self.partition_key)}.{short}.{self.routing_key}"

    @property
    def address(self) -> str:
        """``log/position``: names the event everywhere; the causation id of what it causes."""
        return f"{self.log}/{self.position}"

    def causing(self, actor: str) -> Metadata:
        """The metadata of whatever ``actor`` does because of this event."""
        return Metadata(self.metadata.correlation_id, self.address, self.metadata.traceparent, actor)


def bucket_of(partition_key: str) -> int:
    """The bucket, 0 to 63, of a partition key: CRC-32 modulo 64, the same in every process and version."""
    return zlib.crc32(partition_key.encode()) % BUCKETS
