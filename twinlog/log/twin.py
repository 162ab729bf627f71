"""The twin: the port to the JetStream stream in which sequence n is event n of a log.

Adapters: :class:`twinlog.jetstream.twin.JetStreamTwin` and :class:`twinlog.memory.twin.MemoryTwin`; one behaviour
suite runs over both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from google.protobuf.message import DecodeError

from twinlog.log.wire import from_wire, to_wire
from twinlog.model.errors import TwinlogError
from twinlog.model.event import Recorded
from twinlog.v1.event_pb2 import RecordedEvent

_IDENTITY = {"position", "event_id", "payload"}


class WrongLastSequence(TwinlogError):
    """Stream {stream} refused event {position}: its last sequence is another; read it and go on there."""

    reason = "WRONG_LAST_SEQUENCE"


class TwinMissing(TwinlogError):
    """There is no stream {stream}."""

    reason = "TWIN_MISSING"


class TwinDamaged(TwinlogError):
    """Stream {stream} does not mirror its log: {damage}. Way out: {remedy}"""

    reason = "TWIN_DAMAGED"


class DeliveryLost(TwinlogError):
    """The delivery from stream {stream} broke: {why}; open a new one at the checkpoint."""

    reason = "DELIVERY_LOST"


class TwinState(NamedTuple):
    """How far a twin reaches."""

    first: int
    """Its first sequence; ``last + 1`` in an empty stream."""
    last: int
    """Its last sequence; ``first - 1`` in an empty stream."""
    holes: int
    """How many sequences between them are missing."""


class Delivery(Protocol):
    """An open, ack-less delivery."""

    @property
    def waiting(self) -> int:
        """How many events have come and were not asked for yet, as far as is known."""
        ...

    async def next(self, limit: int) -> Sequence[Recorded]:
        """At least one and up to ``limit`` events, in order; waits for the first.

        Raises :class:`DeliveryLost` on a gap, on silence (no heartbeat) or where the consumer is gone, and
        :class:`TwinDamaged` before a message that is not the event it should be.
        """
        ...


class Twin(Protocol):
    """The stream of one log."""

    @property
    def name(self) -> str:
        """The stream's name: the log's."""
        ...

    async def state(self) -> TwinState:
        """How far it reaches.

        Raises :class:`TwinMissing`, and :class:`TwinDamaged` where the stream is someone else's.
        """
        ...

    async def create(self, first: int) -> None:
        """Creates the stream, its first message to have sequence ``first``; does nothing where it exists."""
        ...

    async def message(self, sequence: int) -> bytes | None:
        """The bytes of one message; None where there is none."""
        ...

    async def delete(self) -> None:
        """Deletes the stream; does nothing where there is none."""
        ...

    async def publish(self, events: Sequence[Recorded]) -> None:
        """Stores consecutive events under their own positions as sequences.

        Raises :class:`WrongLastSequence`, with nothing stored where the stream is not right before the first of
        them; :class:`TwinMissing`; or :class:`~twinlog.errors.Unavailable`. Those two, and a rival that publishes the
        same events at the same time, may leave a part of them stored; each of it under its own position.
        """
        ...

    def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AbstractAsyncContextManager[Delivery]:
        """Events with a sequence greater than ``after``; of the given event types (short names), or all.

        With a ``tag``: only those that carry it.

        None is left out: where one is gone from the stream, the delivery is lost, at the start or later.
        """
        ...

    async def notify(self) -> None:
        """Tells whoever waits in :meth:`poked`, in any process, that the log has grown. May get lost."""
        ...

    async def notified(self, timeout: float) -> None:
        """Returns at the next poke, or after ``timeout`` seconds."""
        ...


def mirrors(data: bytes, event: Recorded) -> bool:
    """Whether a message of the log's twin is this event.

    What identifies the event must be equal: position, id and payload; so must whatever else both know. A message
    written by a version that knew fewer fields of events, or more, is still the event.
    """
    ours = to_wire(event)
    return data == ours or _agree(data, RecordedEvent.FromString(ours))


def _agree(data: bytes, ours: RecordedEvent) -> bool:
    try:
        theirs = RecordedEvent.FromString(data)
    except DecodeError:
        return False
    named = [
        (field, getattr(theirs, field), getattr(ours, field))
        for field in RecordedEvent.DESCRIPTOR.fields_by_name
    ]
    return all(one == other or not (field in _IDENTITY or (one and other)) for field, one, other in named)


def event_in(stream: str, sequence: int, subject: str, data: bytes) -> Recorded:
    """The event in a message of a twin.

    Raises :class:`TwinDamaged` where the message is not the event with the position ``sequence``: to skip it would lose
    an event, to handle it would make one up.
    """
    try:
        event = from_wire(subject, data)
    except DecodeError:
        event = None
    if event is None or event.position != sequence:
        raise TwinDamaged(
            stream=stream,
            damage=f"its message {sequence} is not event {sequence} of the log",
            remedy=f"delete the stream (nats stream rm {stream}); the service that owns the log makes it again.",
        )
    return event
