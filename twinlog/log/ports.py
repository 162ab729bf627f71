"""The log: the port through which the kernel writes and reads.

Adapters: :class:`twinlog.postgres.log.PostgresLog` and :class:`twinlog.memory.log.MemoryLog`; one behavior suite
covers both. Positions are 1, 2, 3 … without a gap, in the order of commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from twinlog.model.event import MOST_POSITION, MOST_VERSION, NewEvent, Recorded, StreamId
from twinlog.model.forms import TEXT, Forms, one, optional, refuse_value, whole


class NewReply(NamedTuple):
    """The outcome of a request, about to be stored in the transaction of its events."""

    request_id: str
    fingerprint: bytes
    """Hash of the request: the same id with another fingerprint is an error."""
    reply: bytes
    """The serialized response."""
    events: int
    """Number of events in the batch up to and including the request's own."""


class StoredReply(NamedTuple):
    """The stored outcome of a request."""

    request_id: str
    fingerprint: bytes
    """Hash of the request: the same id with another fingerprint is an error."""
    reply: bytes
    """The serialized response."""
    position: int
    """The position of the log at which the request's effects are visible."""


class _CheckpointAdvance(NamedTuple):
    consumer: str
    after: int
    upto: int
    event_id: UUID | None = None
    """The id of the event at ``upto``; None: unknown."""


_ADVANCE: Forms = {
    "consumer": TEXT,
    "after": whole(-MOST_POSITION, MOST_POSITION),
    "upto": whole(0, MOST_POSITION),
    "event_id": optional(one(UUID, "the UUID of an event")),
}


class CheckpointAdvance(_CheckpointAdvance):
    """Advances a consumer's checkpoint to ``upto`` if it is still at ``after``.

    One that somebody has set below 0 is before the first event, as 0 is, and advances from where it is.

    Raises ValueError unless each part is what it is said to be.
    """

    __slots__ = ()

    def __new__(cls, consumer: str, after: int, upto: int, event_id: UUID | None = None) -> CheckpointAdvance:
        made = tuple.__new__(cls, (consumer, after, upto, event_id))
        # Looked at part by part only where one is wrong: there is one for each batch.
        known = event_id is None or isinstance(event_id, UUID)
        whole_numbers = type(after) is type(upto) is int and upto >= 0
        if not known or not whole_numbers or not isinstance(consumer, str):
            refuse_value("CheckpointAdvance", made, _ADVANCE)
        return made


class Handled(NamedTuple):
    """An event that a consumer is known to have handled."""

    position: int
    event_id: UUID


class Tip(NamedTuple):
    """What a writer knows of the history of its log."""

    era: int
    """The era of the log's history."""
    position: int
    """An event that the log had; 0: none is known."""
    event_id: UUID | None
    """Its id."""
    connections: int = 0
    """How many connections to the store had been made."""


class TimerChange(NamedTuple):
    """Sets the one timer of a stream, or clears it (``due`` is None)."""

    stream: StreamId
    version: int
    due: datetime | None


class Timer(NamedTuple):
    """A stream that asks to be woken at ``due``."""

    stream: StreamId
    version: int
    due: datetime


class Snapshot(NamedTuple):
    """A stream's state at a version. A cache: ignored once the state's schema has changed."""

    stream: StreamId
    version: int
    position: int
    """The position of the event with that version."""
    schema: str
    """Hash of the schema of the state."""
    state: bytes


class ReadRequest(NamedTuple):
    """A stream to load."""

    stream: StreamId
    after: int = 0
    """Only events after this version."""
    schema: str = ""
    """A snapshot with this schema hash may replace older events; empty: no snapshot may."""
    upto: int = MOST_VERSION
    """Only events up to this version."""
    to_fold: bool = False
    """Whether the events are only folded: a store may leave out all but position, version, type and payload."""


class StreamSlice(NamedTuple):
    """What a load returns for one stream."""

    snapshot: Snapshot | None
    events: Sequence[Recorded]
    """The events after the snapshot, or after the requested version."""


class Statement(NamedTuple):
    """A statement of a domain's own, for a store that knows SQL."""

    query: str
    """One statement, with $1, $2 … for its arguments."""
    arguments: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one append commits, in one transaction: all of it or nothing."""

    recorded_at: datetime
    expects: Mapping[StreamId, int]
    """The version of every stream that was read or is written, before the batch."""
    events: Sequence[NewEvent] = ()
    replies: Sequence[NewReply] = ()
    advances: Sequence[CheckpointAdvance] = ()
    timers: Sequence[TimerChange] = ()
    statements: Sequence[Statement] = ()
    """Executed in order once the rest is appended, in the same transaction."""
    tip: Tip | None = None
    """The append is refused where the log no longer has this event, where another era has begun, and where a connection
    was made since; None: never."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The batch is committed; its events have the positions ``first``, ``first + 1`` …"""

    first: int
    """For a batch without events: the position that the next event will get."""
    before: UUID | None = field(default=None, compare=False)
    """The id of the event before that; None at the beginning of the log, or where it is unknown."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was committed, for these reasons."""

    streams: Sequence[StreamId] = ()
    """Streams at another version than expected."""
    replies: Sequence[StoredReply] = ()
    """Outcomes of the requests that already have one."""
    checkpoints: Mapping[str, int] = field(default_factory=dict)
    """The checkpoints of consumers that are elsewhere, by consumer."""
    forked: bool = False
    """The log's history may not be the one that the writer knows."""


class LogSession(Protocol):
    """What a writer needs in order to decide and append."""

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        """The requested streams, in the order of the requests."""

    async def append(self, batch: Batch) -> Appended | Conflict:
        """Commits the batch, or commits nothing and returns the conflict.

        Raises :class:`~twinlog.model.errors.Unavailable` if the outcome is unknown or the store is out of service;
        the caller then retries the very same batch.
        """


class Log(LogSession, Protocol):
    """One service's log."""

    @property
    def name(self) -> str:
        """The name of the log, and of its twin."""

    def exclusive(self) -> AbstractAsyncContextManager[LogSession]:
        """Locks other writers out inside the block, for a writer that keeps losing races.

        An append inside is committed when the block ends.
        """

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """Up to ``limit`` events with a position greater than ``after``, in order."""

    async def head(self) -> int:
        """The position of the last event; 0 in an empty log."""

    async def era(self) -> int:
        """The era of the log's history: what was remembered in an earlier one is compared before it is used."""

    async def begin_era(self) -> None:
        """Begins an era, because the history turned out to be forked, or was repaired."""

    @property
    def connections(self) -> int:
        """How many connections to the store were made so far; a new one may lead to another server."""

    async def reply(self, request_id: str) -> StoredReply | None:
        """The stored outcome of a request, or None."""

    async def checkpoint(self, consumer: str) -> int:
        """The checkpoint of a consumer; 0 for a new one."""

    async def last_handled(self, consumer: str) -> Handled | None:
        """An event that a consumer has handled; it is beyond the checkpoint only if that was set back since.

        None where none is known.
        """

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Sequence[Timer]:
        """Up to ``limit`` timers due at ``now``, oldest first; with ``after``, those that follow it."""

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        """Stores snapshots; an older one never replaces a newer one of the same schema."""

    async def sweep_requests(self, age: timedelta, limit: int) -> int:
        """Forgets up to ``limit`` request outcomes that are older than ``age``, oldest first; returns how many.

        The store's clock tells their age, so a replica's wrong clock loses none.
        """

    async def blockers(self) -> Sequence[str]:
        """What keeps appends waiting at the moment, in words for an operator; empty if nothing is known to."""

    async def page_token_secret(self) -> bytes:
        """32 random bytes that sign page tokens: the same in every process that has this log, and known to no other."""
