"""What makes the past of a log quick to read, where its store can do it: ports beside :mod:`twinlog.log.ports`.

A log that has none of these is read from its first event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from twinlog.log.ports import Snapshot
from twinlog.model.event import StreamId


class Moment(NamedTuple):
    """A moment of a stream: one of these; none of them is now."""

    version: int = 0
    """The stream after this event."""
    position: int = 0
    """The stream as it was when the log ended here."""
    time: datetime | None = None
    """The stream with what was recorded by this time."""


NOW = Moment()


class Nearest(NamedTuple):
    """A snapshot to begin with."""

    snapshot: Snapshot
    checksum: int | None
    """The CRC-32 of its state; None where none is stored."""


class KeptKey(NamedTuple):
    """Which kept snapshot."""

    type: str = ""
    id: str = ""
    version: int = 0


class KeptSnapshot(NamedTuple):
    """A kept snapshot, without its state."""

    stream: StreamId
    version: int
    position: int
    schema: str
    """Hash of the schema of the state."""
    bytes: int
    kept_at: datetime
    of_this_history: bool
    """Whether the log has the event that it was made at."""


@runtime_checkable
class KeepsSnapshots(Protocol):
    """A store of snapshots of versions long past. It is a cache: any of them may be gone."""

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        """Keeps snapshots, in place of those of the same versions, as far as the log has their events."""

    async def nearest(self, stream: StreamId, schema: str, upto: int) -> Nearest | None:
        """The newest snapshot of a stream up to a version, of a schema and of this history; also the newest of all."""

    async def kept(self, type: str, id: str, after: KeptKey, limit: int) -> Sequence[KeptSnapshot]:
        """A page of those that are kept, by stream and version; of one type, or of one stream, if they are given."""

    async def drop_kept(self, type: str, id: str = "", *, but_multiples_of: int = 0) -> int:
        """Drops those of a type, or of one stream; returns how many. With ``but_multiples_of``, other versions only."""

    async def long_streams(self, type: str, version: int) -> Sequence[str]:
        """The ids of the streams of a type that have an event of a version. It looks through the whole log."""


class RowKey(NamedTuple):
    """A row of a view, by the stream that it is folded from."""

    view: str
    log: str
    stream: str
    """As ``type/id``."""


class KeptRow(NamedTuple):
    """A row of a view as it was after an event."""

    version: int
    """The event's place in its stream."""
    position: int
    recorded_at: datetime
    event_id: UUID
    schema: str
    """Hash of the schema of the row."""
    row: bytes


@runtime_checkable
class KeepsRows(Protocol):
    """A store of rows of views as they were. It is a cache: any of them may be gone."""

    async def keep_row(self, key: RowKey, kept: KeptRow) -> None:
        """Keeps a row, in place of that of the same version."""

    async def nearest_row(self, key: RowKey, schema: str, upto: Moment) -> KeptRow | None:
        """The newest row up to a moment, of a schema."""

    async def drop_rows(self, view: str, stream: str = "") -> int:
        """Drops those of a view, or of one stream in it; returns how many."""


@runtime_checkable
class FindsMoments(Protocol):
    """A log that finds moments by itself."""

    async def version_at(self, stream: StreamId, moment: Moment) -> int:
        """The last version of a stream by a position or a time; 0: it had not begun."""

    async def position_at(self, time: datetime) -> int:
        """The last position that was recorded by a time; 0: none was."""


class CausedAt(NamedTuple):
    """What an event was caused by."""

    position: int
    log: str
    """The log of its cause."""
    cause: int
    """The position of its cause there."""


@runtime_checkable
class KnowsCauses(Protocol):
    """A log that tells what its events were caused by, and remembers it at some positions."""

    async def causes_between(self, after: int, upto: int) -> Mapping[str, int]:
        """Of each log, the last event that caused one of the events between two positions."""

    async def causes_of(self, after: int, upto: int) -> Sequence[CausedAt]:
        """The events between two positions that an event caused, in order."""

    async def causal_marks(self) -> Sequence[tuple[int, Mapping[str, int]]]:
        """What was remembered, by position: of each log, the last event that caused any of the events up to there."""

    async def mark_causes(self, position: int, causes: Mapping[str, int]) -> None:
        """Remembers it."""
