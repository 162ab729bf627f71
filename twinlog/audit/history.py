"""Reads one log from its beginning to its head and checks what needs no other log.

Positions and the versions of each stream are gapless, and positions agree with log_head; every event decodes, folds
and has its aggregate's partition key; timers and snapshots, kept ones included, are those that the states call for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID
from zlib import crc32

from google.protobuf.message import Message

from twinlog.audit.report import Findings
from twinlog.audit.twins import span
from twinlog.log.ports import Timer
from twinlog.log.repair import GIVEN_UP
from twinlog.log.snapshots import StateCodec, snapshot_schema
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import UndecodableEvent, UnknownEventType, defect, named
from twinlog.model.event import Recorded, StreamId
from twinlog.model.schema import Schema
from twinlog.postgres.urls import psql

GAPLESS = "positions gapless"
VERSIONS = "versions contiguous"
DECODES = "events decode"
FOLDS = "events fold"
PARTITION = "partition key"
TIMERS = "timers equal states"
SNAPSHOTS = "snapshots equal folds"
KEPT_SNAPSHOTS = "kept snapshots equal folds"
_ARCHIVED = UUID(int=0)
"""In the place of the event's id where the archive alone has it, when a snapshot is kept of it."""


class Change(NamedTuple):
    """An event and the states before and after it; these are None where its aggregate is unknown or its stream cannot
    be read."""

    event: Recorded
    message: Any
    before: Any
    after: Any


@dataclass(slots=True)
class Head:
    """A stream, as far as it has been read."""

    version: int
    state: Any
    unreadable: bool = False
    """Whether its state is unknown, because one of its events could not be read."""


class SnapshotKey(NamedTuple):
    """A snapshot, without its state."""

    stream: StreamId
    version: int
    schema: str
    event_id: UUID | None = None
    """The event that a kept one was made at; None: it is the newest of its stream, which is no kept one."""


class StoredState(NamedTuple):
    """What a snapshot holds."""

    state: bytes
    checksum: int | None = None
    """The CRC-32 of its state; None where none is stored."""


class HistoryAudit:
    """Follows one log. It keeps the states of the log's streams in memory, but not its events."""

    def __init__(self, log: str, database: str, aggregates: Sequence[AnyAggregate], schema: Schema) -> None:
        self.log = log
        self.position = 0
        """Read up to here."""
        self.heads: dict[StreamId, Head] = {}
        self.captured: list[tuple[SnapshotKey, Any]] = []
        """Snapshots whose version was passed, with the states that they have to hold."""
        self._database = database
        self._aggregates = {aggregate.name: aggregate for aggregate in aggregates}
        self._codecs = {aggregate.name: StateCodec(aggregate) for aggregate in aggregates}
        self._undeclared = {GIVEN_UP}
        self._schema = schema
        self.due: dict[StreamId, datetime] = {}
        """When each stream that waits for a time is due."""
        self._snapshots: Mapping[StreamId, SnapshotKey] = {}
        self._kept: Mapping[tuple[StreamId, int], SnapshotKey] = {}

    def begin(self, snapshots: Sequence[SnapshotKey], kept: Sequence[SnapshotKey]) -> None:
        """Takes in the snapshots that exist, and those that are kept of older versions.

        Those with another schema are ignored, as the services ignore them; so are kept ones of another history.
        """
        current = {name: snapshot_schema(codec, self._schema) for name, codec in self._codecs.items()}
        self._snapshots = {s.stream: s for s in snapshots if current.get(s.stream.type) == s.schema}
        self._kept = {(s.stream, s.version): s for s in kept if current.get(s.stream.type) == s.schema}

    def take(self, event: Recorded, findings: Findings) -> Iterator[Change]:
        """Checks the next event; yields the changes that it made."""
        if event.position != self.position + 1:
            self._gap(event.position - 1, findings)
        self.position = event.position
        head = self.heads.get(event.stream)
        if head is None:
            aggregate = self._aggregates.get(event.stream.type)
            if aggregate is None and event.stream.type not in self._undeclared:
                self._undeclared.add(event.stream.type)
                findings.note(
                    f"log {self.log} has streams of {event.stream.type!r}, which is none of its service's aggregates: "
                    "their states and timers are not compared; was it renamed?"
                )
            head = self.heads[event.stream] = Head(0, aggregate.initial if aggregate else None)
        if event.version != head.version + 1:
            says = f"stream {event.stream} goes from version {head.version} to {event.version}"
            self._add(VERSIONS, says, event, findings)
        head.version = event.version
        for message in self._decode(event, head, findings):
            before = head.state
            if head.unreadable:
                yield Change(event, message, None, None)
            elif self._evolve(event, head, message, findings):
                yield Change(event, message, before, head.state)
        if not head.unreadable:
            self._capture(event, head)

    def unreadable(self) -> list[StreamId]:
        """The streams that cannot be read to their end."""
        return [stream for stream, head in self.heads.items() if head.unreadable]

    def give_up(self, event: Recorded, why: str, findings: Findings) -> None:
        """Reports an event that its stream cannot be read over; what depends on its state is not judged any more."""
        self.heads[event.stream].unreadable = True
        self.due.pop(event.stream, None)
        self._add(FOLDS, f"{event.stream} cannot be folded over {event.type}: {why}", event, findings)

    def end(self, upto: int, newest: int, findings: Findings) -> None:
        """Checks the end: everything up to ``upto``, which is log_head, was read; ``newest`` is the last event."""
        if self.position < upto:
            self._gap(upto, findings)
            self.position = upto
        if newest != upto:
            findings.add(
                GAPLESS,
                f"log_head says {upto}, but the last event is {newest}",
                ids=[self.log],
                events=[f"{self.log}/{max(upto, newest)}"],
                remedy=f"twinlog repair {self.log} --database {self._database}    # with --dry-run first",
            )

    def judge_timers(self, timers: Sequence[Timer], findings: Findings) -> int:
        """Compares the timers with the states of the same instant; returns how many there are.

        A timer of version 0 was left by a repair: the service looks at its stream next, whatever is due there.
        """
        unreadable = {*self.unreadable()}
        found = {timer.stream: timer for timer in timers if timer.stream not in unreadable}
        repaired = {timer.stream for timer in timers if not timer.version}
        for stream, due in self.due.items():
            timer = found.pop(stream, None)
            if stream in repaired:
                continue
            if timer is None or timer.due != due:
                is_set = f"is set for {timer.due:%Y-%m-%d %H:%M:%S}" if timer else "has no timer"
                findings.add(
                    TIMERS,
                    f"{stream} is due at {due:%Y-%m-%d %H:%M:%S} and {is_set}: nobody will wake it then",
                    ids=[str(stream)],
                    remedy=f"{psql(self._database)} -c \"INSERT INTO timers VALUES ('{stream.type}', '{stream.id}', "
                    f"{self.heads[stream].version}, '{due.isoformat()}') ON CONFLICT (stream_type, stream_id) "
                    'DO UPDATE SET due = excluded.due"',
                )
        for stream in [each for each in found if each not in repaired]:
            findings.add(
                TIMERS,
                f"{stream} has a timer and nothing that is due",
                ids=[str(stream)],
                remedy=f"{psql(self._database)} -c \"DELETE FROM timers WHERE stream_id = '{stream.id}'\"",
            )
        return len(timers)

    def judge_snapshots(self, findings: Findings) -> None:
        """Reports snapshots that are newer than their streams."""
        for key in self._snapshots.values():
            head = self.heads.get(key.stream)
            if head is None or head.version < key.version:
                self._bad_snapshot(key, f"its stream has only {head.version if head else 0} events", findings)

    def judge_snapshot(
        self, key: SnapshotKey, expected: Any, stored: StoredState, findings: Findings
    ) -> None:
        """Compares the state in a snapshot with the fold of its stream."""
        if stored.checksum not in (None, crc32(stored.state)):
            self._bad_snapshot(key, "its bytes are not those that were kept", findings)
            return
        try:
            equal = self._codecs[key.stream.type].decode(stored.state) == expected
        except Exception:  # over bytes that are no state, what decodes it may raise anything
            self._bad_snapshot(key, "its state cannot be read", findings)
            return
        if not equal:
            self._bad_snapshot(key, "its state is not the fold of its events", findings)

    def _bad_snapshot(self, key: SnapshotKey, why: str, findings: Findings) -> None:
        check, kind = SNAPSHOTS, "snapshot"
        remedy = f'{psql(self._database)} -c "TRUNCATE snapshots"    # and restart its service; a cache'
        if key.event_id:
            check, kind = KEPT_SNAPSHOTS, "kept snapshot"
            remedy = f"twinlog snapshots rebuild {key.stream}    # or drop; a cache"
        findings.add(
            check,
            f"the {kind} of {key.stream} at version {key.version} is wrong: {why}",
            ids=[str(key.stream)],
            remedy=remedy,
        )

    def _gap(self, upto: int, findings: Findings) -> None:
        first = self.position + 1
        findings.add(
            GAPLESS,
            f"log {self.log} has no event {span(first, upto)}",
            ids=[self.log],
            events=sorted({f"{self.log}/{first}", f"{self.log}/{upto}"}),
            remedy=f"twinlog repair {self.log} --dry-run    # what its stream can put back",
        )

    def _add(self, check: str, says: str, event: Recorded, findings: Findings) -> None:
        """Reports an event that is not what its stream can have."""
        remedy = (
            f"nats stream get {self.log} <position>    # the twin may still have it: insert it again, or restore "
            f"a backup of {self._database}"
        )
        findings.add(check, says, ids=[str(event.stream)], events=[event.address], remedy=remedy)

    def _decode(self, event: Recorded, head: Head, findings: Findings) -> Sequence[Message]:
        try:
            return self._schema.decode(event)
        except (UnknownEventType, UndecodableEvent) as error:
            head.unreadable = True
            self.due.pop(event.stream, None)
            findings.add(
                DECODES,
                f"{event.stream} cannot be read at version {event.version}: {error}",
                ids=[str(event.stream)],
                events=[event.address],
                remedy=f"deploy the version that wrote it; or nats stream get {self.log} {event.position}    "
                "# and put its payload back",
            )
            return ()

    def _evolve(self, event: Recorded, head: Head, message: Message, findings: Findings) -> bool:
        aggregate = self._aggregates.get(event.stream.type)
        if aggregate is None:
            return True
        try:
            state = aggregate.fold((message,), head.state)
            due, key = aggregate.due(state), aggregate.partition_key(state)
        except BaseException as error:  # an impossible history may break the fold in any way
            self.give_up(event, named(defect(error)), findings)
            return False
        if key != event.partition_key:
            says = f"{event.address} lies under partition key {event.partition_key}, its aggregate says {key}"
            self._add(PARTITION, says, event, findings)
        head.state = state
        if due is None:
            self.due.pop(event.stream, None)
        else:
            self.due[event.stream] = due
        return True

    def _capture(self, event: Recorded, head: Head) -> None:
        key = self._snapshots.get(event.stream)
        if key is not None and key.version == head.version:
            self.captured.append((key, head.state))
        kept = self._kept.get((event.stream, head.version)) if self._kept else None
        if kept is not None and kept.event_id in (event.event_id, _ARCHIVED):
            self.captured.append((kept, head.state))
