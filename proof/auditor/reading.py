"""One pass over one log, in which everything that is compared with its events takes part."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import Message

from proof.auditor.database_snapshots import DatabaseSnapshot
from proof.auditor.dead_letters import out_of_order
from proof.auditor.followers import Follower
from proof.auditor.history import Change, HistoryAudit
from proof.auditor.ledger import Ledger
from proof.auditor.report import Findings
from proof.auditor.shop import LogOf
from proof.auditor.twins import TwinAudit
from proof.auditor.views import TimelineAudit, ViewAudit
from twinlog import Recorded, Schema, StreamId
from twinlog.testing.internals import (
    DEAD_LETTERS,
    NatsClient,
    Pool,
    PostgresLog,
    UndecodableEvent,
    UnknownEventType,
)

BATCH = 2_000
"""Events read at once."""

IDS = "event ids unique"
CAUSES = "causes exist"


class Reading:
    """Follows one log."""

    def __init__(
        self,
        of: LogOf,
        client: NatsClient,
        pool: Pool,
        ledger: Ledger,
        followers: Sequence[Follower],
        views: Sequence[ViewAudit],
        timeline: TimelineAudit | None,
        schema: Schema,
    ) -> None:
        """``followers`` of all logs; ``timeline`` None where the log has none."""
        self.of = of
        self.log = PostgresLog(pool, of.log)
        self.history = HistoryAudit(of.log, of.database, of.aggregates, schema)
        self.twin = TwinAudit(client, of.log, of.owner)
        self.views = [view for view in views if view.log == of.log]
        self.timeline = timeline
        self.findings = Findings()
        """What was found in events that are read only once."""
        self.checked: Counter[str] = Counter()
        self._ledger = ledger
        self._followers = [follower for follower in followers if follower.log == of.log]
        self._actors = {follower.consumer: follower for follower in followers}
        self._schema = schema
        self._early: deque[tuple[str, int, str]] = deque()
        """Effects of causes beyond what was read of the cause's log: that log, the cause's position, the case."""

    def in_flight(self) -> Iterator[str]:
        """The cases that this log's events show to be in flight."""
        for follower in self._followers:
            yield from follower.in_flight()
        yield from (case for _, _, case in self._early)

    async def read(
        self, databases: Mapping[str, DatabaseSnapshot], heads: Mapping[str, int], seen: Mapping[str, int]
    ) -> None:
        """Reads up to the snapshot's head, from where the part that is furthest behind stands.

        ``databases`` by name. ``seen`` has the head of each log in its snapshot, ``heads`` the same, read later.
        """
        own = databases[self.of.database]
        self._early = deque(early for early in self._early if early[1] > seen[early[0]])
        for follower in self._followers:
            follower.begin(databases[follower.database].reached(follower.consumer), self.findings)
        for view in self.views:
            view.begin()
        if self.timeline:
            await self.timeline.compare_replayed(databases[self.timeline.database].connection, self.findings)
        for event_id, positions in await own.doubled_ids(self.history.position):
            self._doubled(event_id, positions)
        self.history.begin(await own.snapshots())
        position = self._start(databases, own.head)
        while position < own.head:
            events = [e for e in await self.log.read(position, BATCH) if e.position <= own.head]
            if not events:
                break
            await self._compare(events, databases)
            self._take(events, heads, seen)
            await self._compare_snapshots(own)
            position = events[-1].position
        self.history.end(own.head, await own.newest(), self.findings)

    def _start(self, databases: Mapping[str, DatabaseSnapshot], head: int) -> int:
        positions = [self.history.position]
        if self.twin.position < min(self.twin.state.last, head):
            positions.append(self.twin.position)
        for view in self.all_views():
            if view.position < min(databases[view.database].reached(view.consumer), head):
                positions.append(view.position)
        return min(positions)

    def all_views(self) -> list[ViewAudit | TimelineAudit]:
        """The views of this log, its timeline included."""
        return [*self.views, self.timeline] if self.timeline else [*self.views]

    async def _compare(self, events: Sequence[Recorded], databases: Mapping[str, DatabaseSnapshot]) -> None:
        """Compares the events with what has a position of its own: the twin and the views."""
        self.checked["twin messages"] += await self.twin.compare(events, self.findings)
        decoded = [(event, self._decode(event)) for event in events]
        for view in self.views:
            upto = databases[view.database].reached(view.consumer)
            for event, messages in decoded:
                if view.position < event.position <= upto:
                    view.take(event, messages, self.findings)
        if self.timeline is None:
            return
        views = databases[self.timeline.database]
        self.checked["view rows"] += await self.timeline.compare(
            views.connection, decoded, views.reached(self.timeline.consumer), self.findings
        )

    def _decode(self, event: Recorded) -> Sequence[Message]:
        try:
            return self._schema.decode(event)
        except (UnknownEventType, UndecodableEvent):
            return ()  # the audit of the history reports it

    def _take(self, events: Sequence[Recorded], heads: Mapping[str, int], seen: Mapping[str, int]) -> None:
        for event in events:
            if event.position > self.history.position:
                self.checked["events"] += 1
                for change in self.history.take(event, self.findings):
                    self._follow(change, self._enter(change), heads, seen)

    def _enter(self, change: Change) -> str:
        """Enters a change into the ledger; gives its case."""
        try:
            return self._ledger.take(change, self.findings)
        except Exception as error:  # what an event says may be anything, where something else wrote it
            self.history.give_up(change.event, f"{type(error).__name__} {error}", self.findings)
            return ""

    def _follow(self, change: Change, case: str, heads: Mapping[str, int], seen: Mapping[str, int]) -> None:
        event, message = change.event, change.message
        for follower in self._followers:
            follower.take(event, message, case, self.findings)
        for view in self.all_views():
            view.note(event, message)
        log, _, number = event.metadata.causation_id.partition("/")
        if log not in heads or not number.isdecimal():
            return
        position = int(number)
        if position > heads[log] or (log == event.log and position >= event.position):
            self.findings.add(
                CAUSES,
                f"{event.address} was caused by {log}/{number}, which does not exist",
                ids=[str(event.stream)],
                events=[event.address],
                remedy=f"restore a database of the log {log} that has {number} events",
            )
        elif position > seen[log]:
            self._early.append((log, position, case))
        actor = self._actors.get(f"{event.metadata.actor}.{log}")
        if actor is not None:
            actor.caused(position, event.address)
            self._judge_order(event, actor, position)

    def _judge_order(self, event: Recorded, actor: Follower, cause: int) -> None:
        """No effect comes between the parking of an earlier event of its key and what became of that."""
        if event.stream.type == DEAD_LETTERS.name:
            return
        head = self.history.heads.get(StreamId(DEAD_LETTERS.name, actor.consumer))
        first = head.state.first(event.partition_key) if head else None
        if first and first.position < cause:
            why = f"was handled while {actor.log}/{first.position} was parked"
            out_of_order(actor.dead_letters, cause, why, event.address, self.findings)

    async def _compare_snapshots(self, own: DatabaseSnapshot) -> None:
        while self.history.captured:
            key, state = self.history.captured.pop()
            self.checked["snapshots"] += 1
            stored = await own.snapshot(key.stream)
            self.history.judge_snapshot(key, state, stored, self.findings)

    def _doubled(self, event_id: str, positions: Sequence[int]) -> None:
        self.findings.add(
            IDS,
            f"event id {event_id} stands {len(positions)} times in log {self.of.log}",
            ids=[event_id],
            events=[f"{self.of.log}/{position}" for position in positions],
            remedy=f"append events that correct the later ones; find what wrote to {self.of.database} besides "
            f"{self.of.owner}",
        )
