"""The log: the port that the kernel writes and reads through.

Adapters: :class:`twinlog.postgres.log.PostgresLog` and :class:`twinlog.memory.log.MemoryLog`; one behaviour suite
runs over both. Positions are 1, 2, 3 … without a gap, in the order of commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from twinlog.model.event import NewEvent, Recorded, StreamId


class StoredReply(NamedTuple):
    """The outcome of a request, kept under its request id in the transaction of its events."""

    request_id: str
    fingerprint: bytes
    """Hash of the request: the same id with another fingerprint is an error."""
    reply: bytes
    """The response, serialised."""
    offset: int
    """In an append: how many of the batch's events precede and include the request's; in a stored row:
    the position at which the request's effects are visible."""


class CheckpointAdvance(NamedTuple):
    """Moves a consumer's checkpoint, by compare-and-set."""

    consumer: str
    after: int
    upto: int


class TimerChange(NamedTuple):
    """Sets (``due``) or clears (``None``) the one timer of a stream."""

    stream: StreamId
    version: int
    due: datetime | None


class Timer(NamedTuple):
    """A stream that wants to be woken."""

    stream: StreamId
    version: int
    due: datetime


class Snapshot(NamedTuple):
    """A stream's state at a version. A cache, never trusted over a changed schema."""

    stream: StreamId
    version: int
    position: int
    """Position of the event with that version."""
    schema: str
    """Hash of the state's schema."""
    state: bytes


class ReadRequest(NamedTuple):
    """A stream to load."""

    stream: StreamId
    after: int = 0
    """Only events after this version."""
    schema: str = ""
    """A snapshot with this schema hash may stand in for older events; empty: none may."""
    upto: int = 2**31 - 1
    """Only events up to this version."""


class StreamSlice(NamedTuple):
    """What a load gives for one stream."""

    snapshot: Snapshot | None
    events: Sequence[Recorded]
    """Those after the snapshot, or after the wanted version."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything one append commits, in one transaction: all of it or nothing."""

    recorded_at: datetime
    expects: Mapping[StreamId, int]
    """Every stream that was read or is written, and the version it was at."""
    events: Sequence[NewEvent] = ()
    replies: Sequence[StoredReply] = ()
    advances: Sequence[CheckpointAdvance] = ()
    timers: Sequence[TimerChange] = ()


@dataclass(frozen=True, slots=True)
class Appended:
    """The batch is committed; its events have the positions ``first``, ``first + 1`` …"""

    first: int
    """Where the batch has no events: the position that the next event will get."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was committed, because of these."""

    streams: Sequence[StreamId] = ()
    """Not at the expected version."""
    replies: Sequence[StoredReply] = ()
    """Requests that have their outcome already."""
    checkpoints: Mapping[str, int] = field(default_factory=dict)
    """Consumers whose checkpoint is elsewhere, and where."""


class LogSession(Protocol):
    """What a writer needs while it decides."""

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        """The histories of the wanted streams, in their order."""
        ...

    async def append(self, batch: Batch) -> Appended | Conflict:
        """Commits the batch, or says what is in the way and commits nothing.

        Raises :class:`~twinlog.errors.Unavailable` where the outcome is unknown or the store is out of
        service: the caller tries the very same batch again.
        """
        ...


class Log(LogSession, Protocol):
    """One service's log."""

    @property
    def name(self) -> str:
        """The log's name; also the name of its twin."""
        ...

    def exclusive(self) -> AbstractAsyncContextManager[LogSession]:
        """Loads and appends inside are shielded from other writers: for the writer that keeps losing.

        An append inside is committed when the block ends.
        """
        ...

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """Up to ``limit`` events with a position greater than ``after``, in order."""
        ...

    async def head(self) -> int:
        """The position of the last event; 0 in an empty log."""
        ...

    async def reply(self, request_id: str) -> StoredReply | None:
        """The stored outcome of a request."""
        ...

    async def checkpoint(self, consumer: str) -> int:
        """Where a consumer stands; 0 for a new one."""
        ...

    async def due(self, now: datetime, limit: int) -> Sequence[Timer]:
        """Up to ``limit`` timers due at ``now``, oldest first."""
        ...

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        """Keeps snapshots; an older one never replaces a newer one of the same schema."""
        ...

    async def page_token_secret(self) -> bytes:
        """32 random bytes that sign page tokens: the same in every process that has this log, and known to no other."""
        ...
