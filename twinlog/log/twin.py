"""The twin: the port to the JetStream stream in which sequence n is event n of a log.

Adapters: :class:`twinlog.jetstream.twin.JetStreamTwin` and :class:`twinlog.memory.twin.MemoryTwin`; one behavior suite
covers both.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, runtime_checkable

from google.protobuf.message import DecodeError

from twinlog.log.wire import from_wire, to_wire
from twinlog.model.errors import FailedPrecondition, TwinlogError, Unavailable
from twinlog.model.event import Recorded
from twinlog.v1.event_pb2 import RecordedEvent

_IDENTITY = {"position", "event_id", "payload"}


class WrongLastSequence(TwinlogError):
    """Stream {stream} refused event {position}, which does not follow its last sequence; continue after that one."""

    reason = "WRONG_LAST_SEQUENCE"


class TwinMissing(TwinlogError):
    """Stream {stream} does not exist; start the service that owns this log, or correct the name of the log."""

    reason = "TWIN_MISSING"


class TwinDamaged(TwinlogError):
    """Stream {stream} does not mirror its log: {damage}. Way out: {remedy}"""

    reason = "TWIN_DAMAGED"


class LogForked(Unavailable):
    """Log {log} and its stream tell two histories from event {since} on ({why}). Until that is repaired, nothing is
    copied and no command accepted. `twinlog repair {log} --dry-run` says what was lost; `twinlog repair {log}` puts it
    back."""

    reason = "LOG_FORKED"


class HeadAstray(LogForked):
    """Log {log} does not end where its table log_head says ({why}). Until that is repaired, nothing is copied and no
    command accepted. `twinlog repair {log} --database {database} --dry-run` says what is missing; the same without
    --dry-run puts it right."""


class LogGapped(Unavailable):
    """Log {log} has no events {first} to {last}, though it has those behind them; nothing more is copied. `twinlog
    repair {log} --dry-run` says what to do."""

    reason = "LOG_GAPPED"


class EventTooLarge(FailedPrecondition):
    """An event of stream {stream} would have {bytes} bytes, and nats-server carries {most} of one at most. Decide
    smaller events, or set its max_payload, or that of this account, higher."""

    reason = "EVENT_TOO_LARGE"


class StreamBehind(Unavailable):
    """Stream {stream} {why}, and {consumer} has handled event {position}: it waits for the stream to be restored. If
    that lasts, `twinlog repair {stream} --dry-run` says why."""

    reason = "STREAM_BEHIND"


class CheckpointForked(Unavailable):
    """{consumer} has handled another event {position} than the one in stream {stream}; nothing more is handled.
    `twinlog repair {stream} --dry-run` says what to do."""

    reason = "CHECKPOINT_FORKED"


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
    """An open delivery; nothing is acknowledged."""

    @property
    def waiting(self) -> int:
        """How many events have arrived but were not taken yet, as far as is known."""

    async def next(self, limit: int) -> Sequence[Recorded]:
        """Between one and ``limit`` events, in order; waits for the first.

        Raises :class:`DeliveryLost` on a gap, on silence (no heartbeat) or if the consumer is gone, and
        :class:`TwinDamaged` at a message that is not the event it should be.
        """


class Twin(Protocol):
    """The stream of one log."""

    @property
    def name(self) -> str:
        """The name of the stream: that of its log, with the namespace."""

    async def state(self) -> TwinState:
        """How far it reaches.

        Raises :class:`TwinMissing`, and :class:`TwinDamaged` if the stream was made by someone else, as
        :class:`~twinlog.log.installation.ForeignStream` if that is another installation.
        """

    async def create(self, first: int) -> None:
        """Creates the stream, whose first message will have the sequence ``first``; does nothing if it exists."""

    async def claim(self) -> None:
        """Has the stream say whose it is, if it does not, as far as it can; it was seen to mirror the log.

        Raises TwinMissing, ForeignStream and Unavailable.
        """

    async def message(self, sequence: int) -> bytes | None:
        """The bytes of one message, or None."""

    async def delete(self) -> None:
        """Deletes the stream; does nothing if it does not exist."""

    async def publish(self, events: Sequence[Recorded]) -> None:
        """Stores consecutive events, each under its position as sequence.

        Raises :class:`WrongLastSequence`, having stored nothing, if the first event does not follow the stream's last
        sequence; :class:`TwinMissing`; or :class:`~twinlog.model.errors.Unavailable`. After the latter two, or if a
        rival publishes the same events at the same time, some may be stored, each under its position.
        """

    def deliver(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> AbstractAsyncContextManager[Delivery]:
        """Delivers events with a sequence greater than ``after``: those of the given types (short names), or all.

        With a ``routing_key``: only those that carry it.

        No event is skipped: if the stream has lost one, the delivery raises :class:`DeliveryLost`, at once or later.
        """

    async def notify(self) -> None:
        """Tells all that wait in :meth:`notified`, in any process, that the log has grown. May get lost."""

    async def notified(self, timeout_seconds: float, /) -> None:
        """Returns at the next notification, or after ``timeout_seconds``."""


@runtime_checkable
class Counting(Protocol):
    """A twin that can say how many events lie ahead of somebody."""

    async def ahead(self, after: int, types: Sequence[str] = (), routing_key: str = "") -> int:
        """How many of the events that a delivery would bring are in the stream. Raises TwinMissing and Unavailable."""


@runtime_checkable
class Peeking(Protocol):
    """A twin that can say which event lies ahead of somebody."""

    async def next_ahead(
        self, after: int, types: Sequence[str] = (), routing_key: str = ""
    ) -> Recorded | None:
        """The first of the events that a delivery would bring, or None. Raises TwinMissing and Unavailable."""


@runtime_checkable
class SizeLimited(Protocol):
    """A twin that takes events up to a size."""

    @property
    def most_bytes(self) -> int:
        """How large the payload of an event may be."""

    async def learn_most_bytes(self) -> None:
        """Asks how large it may be by now; an operator may have raised it. Raises Unavailable."""


@runtime_checkable
class Trimming(Protocol):
    """A twin whose oldest events can be taken out."""

    async def trim(self, upto: int) -> None:
        """Takes out what it has up to a sequence. Raises Unavailable."""


def mirrors(data: bytes, event: Recorded) -> bool:
    """Whether a message of the log's twin is this event.

    Position, id and payload identify the event and must be equal; so must every other field that both have. A message
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

    Raises :class:`TwinDamaged` if the message is not the event at position ``sequence``: skipping it would lose an
    event, handling it would invent one.
    """
    try:
        event = from_wire(subject, data)
    except DecodeError:
        event = None
    if event is None or event.position != sequence:
        raise not_its_event(stream, sequence)
    return event


def not_its_event(stream: str, sequence: int) -> TwinDamaged:
    """That a message of a stream is not the event that it should be."""
    damage = f"its message {sequence} is not event {sequence} of the log"
    remedy = (
        f"`twinlog repair {stream}` compares the stream with its log, puts back into the log what only the stream has, "
        f"and then has the stream made again. Never delete the stream by hand: it may hold the only copy of an event."
    )
    return TwinDamaged(stream=stream, damage=damage, remedy=remedy)
