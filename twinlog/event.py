"""Events as the log holds them and as the twin carries them."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from asyncpg.pgproto import pgproto
from google.protobuf.message import DecodeError, Message

from twinlog.tags import tag_of
from twinlog.v1.event_pb2 import RecordedEvent

BUCKETS = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


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
    tag: str

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
        return cls(stream, version, event_id, name, payload, metadata, partition_key, tag_of(message))


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
    tag: str
    """What consumers may choose it by, besides its type (:mod:`twinlog.tags`)."""
    recorded_at: datetime

    @property
    def subject(self) -> str:
        """The twin's subject: ``<log>.<bucket>.<EventType>.<tag>``."""
        short = self.type.rpartition(".")[2]
        return f"{self.log}.{bucket_of(self.partition_key)}.{short}.{self.tag}"

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


def to_wire(event: Recorded) -> bytes:
    """The twin's message of an event; equal events give equal bytes."""
    return RecordedEvent(
        position=event.position,
        stream_type=event.stream.type,
        stream_id=event.stream.id,
        version=event.version,
        event_id=event.event_id.bytes,
        type=event.type,
        payload=event.payload,
        recorded_at_us=_microseconds(event.recorded_at),
        correlation_id=event.metadata.correlation_id,
        causation_id=event.metadata.causation_id,
        traceparent=event.metadata.traceparent,
        actor=event.metadata.actor,
        partition_key=event.partition_key,
        tag=event.tag,
    ).SerializeToString(deterministic=True)


def from_wire(subject: str, data: bytes) -> Recorded:
    """The event in a twin's message.

    Raises google.protobuf.message.DecodeError on bytes that are none.
    """
    wire = RecordedEvent.FromString(data)
    try:
        event_id = pgproto.UUID(wire.event_id)  # a uuid.UUID, made in a tenth of the time
        recorded_at = _time(wire.recorded_at_us)
    except (ValueError, OverflowError, OSError) as error:
        raise DecodeError(str(error)) from error
    return Recorded(
        subject.partition(".")[0],
        wire.position,
        StreamId(wire.stream_type, wire.stream_id),
        wire.version,
        event_id,
        wire.type,
        wire.payload,
        Metadata(wire.correlation_id, wire.causation_id, wire.traceparent, wire.actor),
        wire.partition_key,
        wire.tag,
        recorded_at,
    )


# All events of a transaction have one time, and come one after the other.


@lru_cache(1)
def _microseconds(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


@lru_cache(1)
def _time(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1e6, UTC)  # exact until the year 2255
