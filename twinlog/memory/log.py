"""The log in memory, with the same rules as in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from secrets import token_bytes

from twinlog.log.chain import (
    APPENDED,
    CUT,
    NOTHING_BEFORE,
    SEALED,
    Link,
    Unlinked,
    event_digests,
    leaves,
    link_hash,
    summed,
)
from twinlog.log.ports import (
    Appended,
    Batch,
    CheckpointAdvance,
    Conflict,
    Handled,
    LogSession,
    ReadRequest,
    Snapshot,
    Statement,
    StoredReply,
    StreamSlice,
    Timer,
    Tip,
)
from twinlog.log.repair import Plan
from twinlog.log.texts import refuse_batch, refuse_ids
from twinlog.memory.past import MemoryPast
from twinlog.model.event import Recorded, StreamId, known_recorded


class MemoryLog(MemoryPast):
    """A log that lives as long as this object."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.replies: dict[str, StoredReply] = {}
        self._replied_at: dict[str, datetime] = {}
        self.checkpoints: dict[str, int] = {}
        self.handled: dict[str, Handled] = {}
        self.eras = 0
        self.timers: dict[StreamId, Timer] = {}
        self.chain: list[Link] = []
        self._noted: list[Unlinked] = []
        self._linked = 0
        self.statements: list[Statement] = []
        """What a domain would have had executed with its events."""
        self._page_token_secret = token_bytes(32)
        self._lock = asyncio.Lock()

    async def append(self, batch: Batch) -> Appended | Conflict:
        async with self._lock:
            return self._append(batch)

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        refuse_ids([want.stream for want in wanted])
        return [self._history(want) for want in wanted]

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[LogSession]:
        async with self._lock:
            yield _Session(self)

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        return self.events[after : after + limit]

    async def head(self) -> int:
        return len(self.events)

    async def era(self) -> int:
        return self.eras

    async def begin_era(self) -> None:
        self.eras += 1

    @property
    def connections(self) -> int:
        return 0

    async def reply(self, request_id: str) -> StoredReply | None:
        return self.replies.get(request_id)

    async def checkpoint(self, consumer: str) -> int:
        return self.checkpoints.get(consumer, 0)

    async def last_handled(self, consumer: str) -> Handled | None:
        return self.handled.get(consumer)

    async def due(self, now: datetime, limit: int, after: Timer | None = None) -> Sequence[Timer]:
        due = sorted((timer for timer in self.timers.values() if timer.due <= now), key=_place)
        return [timer for timer in due if after is None or _place(timer) > _place(after)][:limit]

    async def save(self, snapshots: Sequence[Snapshot]) -> None:
        for snapshot in snapshots:
            kept = self.snapshots.get(snapshot.stream)
            if kept is None or kept.schema != snapshot.schema or kept.version < snapshot.version:
                self.snapshots[snapshot.stream] = snapshot

    async def sweep_requests(self, age: timedelta, limit: int) -> int:
        # The newest outcome is the only clock here.
        newest = max(self._replied_at.values(), default=datetime.min)
        old = [id for id, at in self._replied_at.items() if newest - at > age]
        for id in (swept := sorted(old, key=self._replied_at.__getitem__)[:limit]):
            del self.replies[id], self._replied_at[id]
        return len(swept)

    async def blockers(self) -> Sequence[str]:
        return []

    async def page_token_secret(self) -> bytes:
        return self._page_token_secret

    async def links(self, after: int, limit: int) -> Sequence[Link]:
        return self.chain[after : after + limit]

    async def cuts(self) -> Sequence[Link]:
        return [link for link in self.chain if link.kind == CUT]

    async def newest_link(self) -> Link | None:
        return self.chain[-1] if self.chain else None

    async def unlinked(self) -> Sequence[Unlinked]:
        self._note_unlinked()
        return list(self._noted)

    async def seal(self, limit: int) -> int:
        if not (waiting := await self.unlinked()):
            return 0
        (first, last), upto = waiting[0], min(waiting[0].last, waiting[0].first + limit - 1)
        self._noted[:1] = [Unlinked(upto + 1, last)] if upto < last else []
        self._link(SEALED, first, upto, len(self.events), event_digests(self.events[first - 1 : upto]))
        return upto - first + 1

    def _note_unlinked(self) -> None:
        if self._linked < len(self.events):
            self._noted.append(Unlinked(self._linked + 1, len(self.events)))
            self._linked = len(self.events)

    def _link(self, kind: int, first: int, last: int, head: int, digests: Sequence[bytes]) -> None:
        before = self.chain[-1].hash if self.chain else NOTHING_BEFORE
        digest, marks = summed(digests)
        hash = link_hash(before, kind, first, last, head, digest)
        self.chain.append(Link(len(self.chain) + 1, kind, first, last, head, digest, marks, hash))

    def _cut(self, since: int) -> None:
        """Says in the chain that the log has another history from a position on, as cut_chain.sql does."""
        self._note_unlinked()
        linked = [link.first for link in self.chain if link.kind != CUT and link.last >= since]
        if not (reaching := linked + [each.first for each in self._noted if each.last >= since]):
            return
        cut = min(since, *reaching)
        self._noted = [Unlinked(a, min(b, cut - 1)) for a, b in self._noted if a < cut]
        self._link(CUT, cut, len(self.events), cut - 1, [])
        self._linked = cut - 1

    def _append(self, batch: Batch) -> Appended | Conflict:
        refuse_batch(batch)
        if conflict := self._refused(batch):
            return conflict
        if batch.events:
            self._note_unlinked()
        first = len(self.events) + 1
        before = self.events[-1].event_id if self.events else None
        for position, event in enumerate(batch.events, first):
            recorded = known_recorded((self.name, position, *event, batch.recorded_at))
            self.events.append(recorded)
            self.streams.setdefault(event.stream, []).append(recorded)
        if batch.events:
            digests = leaves(batch.events, batch.recorded_at)
            self._link(APPENDED, first, len(self.events), len(self.events), digests)
            self._linked = len(self.events)
        for reply in batch.replies:
            self.replies[reply.request_id] = StoredReply(*reply[:3], position=first - 1 + reply.events)
            self._replied_at[reply.request_id] = batch.recorded_at
        for advance in batch.advances:
            self.checkpoints[advance.consumer] = advance.upto
            self.note_handled(advance)
        for change in batch.timers:
            self.timers.pop(change.stream, None)
            if change.due is not None:
                self.timers[change.stream] = Timer(change.stream, change.version, change.due)
        self.statements += batch.statements
        return Appended(first, before)

    def repair(self, plan: Plan) -> None:
        """Carries a plan out, as :func:`twinlog.postgres.repair.carry_out` does."""
        self._cut(plan.since)
        self.events[plan.since - 1 :] = [*plan.restored, *plan.kept]
        self.streams.clear()
        for event in self.events:
            self.streams.setdefault(event.stream, []).append(event)
        for id, reply in list(self.replies.items()):
            if reply.position >= plan.since:
                del self.replies[id]
                if reply.position in plan.moved:
                    self.replies[id] = reply._replace(position=plan.moved[reply.position])
        self.checkpoints.update(plan.checkpoints)
        for stream in plan.streams:
            self.snapshots.pop(stream, None)
            self.timers[stream] = Timer(stream, 0, datetime(1970, 1, 1, tzinfo=UTC))
        self.eras += 1

    def note_handled(self, advance: CheckpointAdvance) -> None:
        """Remembers the event that a checkpoint stands at."""
        if advance.event_id:
            self.handled[advance.consumer] = Handled(advance.upto, advance.event_id)

    def _refused(self, batch: Batch) -> Conflict | None:
        """Why a batch cannot be appended; None: it can."""
        if batch.tip and not self._has(batch.tip):
            return Conflict(forked=True)
        conflict = self._conflict(batch)
        return conflict if conflict.streams or conflict.replies or conflict.checkpoints else None

    def _has(self, tip: Tip) -> bool:
        known = self.events[tip.position - 1 : tip.position] if tip.position else []
        return tip.era == self.eras and [event.event_id for event in known] == (
            [tip.event_id] if tip.position else []
        )

    def _conflict(self, batch: Batch) -> Conflict:
        return Conflict(
            [s for s, version in batch.expects.items() if len(self.streams.get(s, ())) != version],
            [self.replies[r.request_id] for r in batch.replies if r.request_id in self.replies],
            {
                advance.consumer: self.checkpoints.get(advance.consumer, 0)
                for advance in batch.advances
                if self.checkpoints.get(advance.consumer, 0) != advance.after
            },
        )

    def _history(self, want: ReadRequest) -> StreamSlice:
        snapshot = self.snapshots.get(want.stream)
        if snapshot is None or snapshot.schema != want.schema or snapshot.version <= want.after:
            snapshot = None
        events = self.streams.get(want.stream, [])
        if snapshot and not _made_at_one_of(events, snapshot):
            snapshot = snapshot._replace(state=b"")
        after = snapshot.version if snapshot else want.after
        return StreamSlice(snapshot, events[after : want.upto])


def _made_at_one_of(events: Sequence[Recorded], snapshot: Snapshot) -> bool:
    """Whether a snapshot was made at the event that its stream has at that version."""
    made_at = events[snapshot.version - 1 : snapshot.version]
    return [event.position for event in made_at] == [snapshot.position]


def _place(timer: Timer) -> tuple[datetime, StreamId]:
    """Where it stands among the timers."""
    return timer.due, timer.stream


class _Session:
    """The session of an exclusive block; its log's lock is already held."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        return await self._log.load(wanted)

    async def append(self, batch: Batch) -> Appended | Conflict:
        return self._log._append(batch)
