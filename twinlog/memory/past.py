"""The past of a log in memory, as it is in Postgres."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID
from zlib import crc32

from twinlog.log.past import CausedAt, KeptKey, KeptRow, KeptSnapshot, Moment, Nearest, RowKey
from twinlog.log.ports import Snapshot
from twinlog.model.event import Recorded, StreamId

_LAST_BIT = 1 << 30


class MemoryPast:
    """What a log in memory knows of its past."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.streams: dict[StreamId, list[Recorded]] = {}
        self.snapshots: dict[StreamId, Snapshot] = {}
        self._kept: dict[KeptKey, tuple[Snapshot, UUID, int]] = {}
        """With the id of the event that each was made at, and the checksum of its state."""
        self._rows: dict[tuple[RowKey, int], KeptRow] = {}
        """By key and version."""
        self._marks: dict[int, tuple[UUID, Mapping[str, int]]] = {}

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        for snapshot in snapshots:
            if event := self._event(snapshot):
                key = KeptKey(*snapshot.stream, snapshot.version)
                self._kept[key] = snapshot, event.event_id, crc32(snapshot.state)

    async def nearest(self, stream: StreamId, schema: str, upto: int) -> Nearest | None:
        found = [
            Nearest(snapshot, checksum)
            for snapshot, event_id, checksum in self._kept.values()
            if snapshot.stream == stream and self._is_at(snapshot, event_id)
        ]
        newest = self.snapshots.get(stream)
        if newest and self._event(newest):
            found.append(Nearest(newest, None))
        fit = [each for each in found if each.snapshot.schema == schema and each.snapshot.version <= upto]
        return max(fit, key=lambda each: each.snapshot.version, default=None)

    async def kept(self, type: str, id: str, after: KeptKey, limit: int) -> Sequence[KeptSnapshot]:
        keys = sorted(key for key in self._kept if type in ("", key.type) and id in ("", key.id))
        return [self._listed(*self._kept[key][:2]) for key in keys[bisect_right(keys, after) :][:limit]]

    async def drop_kept(self, type: str, id: str = "", *, but_multiples_of: int = 0) -> int:
        dropped = [
            key
            for key in self._kept
            if key.type == type
            and id in ("", key.id)
            and not (but_multiples_of and key.version % but_multiples_of == 0)
        ]
        for key in dropped:
            del self._kept[key]
        return len(dropped)

    async def long_streams(self, type: str, version: int) -> Sequence[str]:
        return sorted(
            stream.id
            for stream, events in self.streams.items()
            if stream.type == type and len(events) >= version
        )

    async def keep_row(self, key: RowKey, kept: KeptRow) -> None:
        self._rows[key, kept.version] = kept

    async def nearest_row(self, key: RowKey, schema: str, upto: Moment) -> KeptRow | None:
        fit = [
            kept
            for (of, _), kept in self._rows.items()
            if of == key
            and kept.schema == schema
            and (not upto.version or kept.version <= upto.version)
            and (not upto.position or kept.position <= upto.position)
            and (upto.time is None or kept.recorded_at <= upto.time)
        ]
        return max(fit, key=lambda kept: kept.version, default=None)

    async def drop_rows(self, view: str, stream: str = "") -> int:
        dropped = [at for at in self._rows if at[0].view == view and stream in ("", at[0].stream)]
        for at in dropped:
            del self._rows[at]
        return len(dropped)

    async def version_at(self, stream: StreamId, moment: Moment) -> int:
        events = self.streams.get(stream, [])
        if moment.time is None:
            return bisect_right(events, moment.position, key=lambda event: event.position)
        return _by_halves(events, moment.time)

    async def position_at(self, time: datetime) -> int:
        return _by_halves(self.events, time)

    async def causes_between(self, after: int, upto: int) -> Mapping[str, int]:
        causes: dict[str, int] = {}
        for caused in await self.causes_of(after, upto):
            causes[caused.log] = max(caused.cause, causes.get(caused.log, 0))
        return causes

    async def causes_of(self, after: int, upto: int) -> Sequence[CausedAt]:
        found = []
        for event in self.events[after:upto]:
            log, _, at = event.metadata.causation_id.partition("/")
            if log and at.isascii() and at.isdigit():
                found.append(CausedAt(event.position, log, int(at)))
        return found

    async def causal_marks(self) -> Sequence[tuple[int, Mapping[str, int]]]:
        return [
            (position, causes)
            for position, (event_id, causes) in sorted(self._marks.items())
            if position <= len(self.events) and self.events[position - 1].event_id == event_id
        ]

    async def mark_causes(self, position: int, causes: Mapping[str, int]) -> None:
        self._marks[position] = self.events[position - 1].event_id, causes

    def _event(self, snapshot: Snapshot) -> Recorded | None:
        """The event that a snapshot was made at, where the log has it."""
        found = self.streams.get(snapshot.stream, [])[snapshot.version - 1 : snapshot.version]
        return found[0] if found and found[0].position == snapshot.position else None

    def _is_at(self, snapshot: Snapshot, event_id: UUID) -> bool:
        event = self._event(snapshot)
        return event is not None and event.event_id == event_id

    def _listed(self, snapshot: Snapshot, event_id: UUID) -> KeptSnapshot:
        at = self.events[-1].recorded_at if self.events else datetime.min
        ours = self._is_at(snapshot, event_id)
        stream, version, position, schema, state = snapshot
        return KeptSnapshot(stream, version, position, schema, len(state), at, ours)


def _by_halves(events: Sequence[Recorded], time: datetime) -> int:
    """How many events there are by a time. It looks at the same ones whatever comes after, as Postgres does."""
    at, bit = 0, _LAST_BIT
    while bit:
        if at + bit <= len(events) and events[at + bit - 1].recorded_at <= time:
            at += bit
        bit //= 2
    return at
