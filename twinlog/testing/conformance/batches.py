"""Builders of what goes into a log: events of counters, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value

from twinlog.log.ports import Appended, Batch, CheckpointAdvance, Conflict, Log, NewReply, TimerChange
from twinlog.model.event import Metadata, NewEvent, Recorded, StreamId

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
METADATA = Metadata("correlation", "rpc/Add", "00-trace", "tests")


def counter(id: str = "a") -> StreamId:
    return StreamId("counter", id)


A, B, C = counter("a"), counter("b"), counter("c")


def new_event(stream: StreamId, version: int, message: Message | None = None) -> NewEvent:
    """An event of that version; by default one that adds the version."""
    message = message or Int64Value(value=version)
    return NewEvent.of(stream, version, uuid4(), message, METADATA, "one")


def batch(
    *writes: tuple[StreamId, int, int],
    reads: Mapping[StreamId, int] | None = None,
    replies: Sequence[NewReply] = (),
    advances: Sequence[CheckpointAdvance] = (),
    timers: Sequence[TimerChange] = (),
) -> Batch:
    """A batch of ``writes``: to a stream at a version, so many events."""
    events = [
        new_event(stream, version)
        for stream, after, count in writes
        for version in range(after + 1, after + count + 1)
    ]
    expects = {**(reads or {}), **{stream: after for stream, after, _ in writes}}
    return Batch(NOW, expects, events, replies, advances, timers)


def conflict(result: Appended | Conflict) -> Conflict:
    """The conflict that an append has met."""
    assert isinstance(result, Conflict)
    return Conflict(tuple(result.streams), tuple(result.replies), dict(result.checkpoints))


async def append(log: Log, *batches: Batch) -> None:
    """Appends batches that nothing is in the way of."""
    for each in batches:
        assert isinstance(await log.append(each), Appended)


async def grow(log: Log, count: int, id: str = "a") -> Sequence[Recorded]:
    """Appends so many events to a counter, in one batch, and gives them as they are recorded."""
    head = await log.head()
    version = sum(event.stream == counter(id) for event in await log.read(0, head))
    await append(log, batch((counter(id), version, count)))
    return await log.read(head, count)


def recorded(log: str, count: int, after: int = 0, message: Message | None = None) -> list[Recorded]:
    """Events as a log gives them, without a log; the same ones for the same arguments."""
    return [
        Recorded(
            log,
            position,
            *new_event(counter(), position, message)._replace(event_id=UUID(int=position)),
            recorded_at=NOW,
        )
        for position in range(after + 1, after + count + 1)
    ]
