"""One pass over one log: whatever is compared with its events goes along."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.message import Message

from proof.auditor.books import Books
from proof.auditor.cuts import Cut
from proof.auditor.followers import Follower
from proof.auditor.history import Change, HistoryAudit
from proof.auditor.letters import out_of_order
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
        books: Books,
        followers: Sequence[Follower],
        views: Sequence[ViewAudit],
        timeline: TimelineAudit | None,
    ) -> None:
        """``followers``: of all logs; ``timeline``: None where the log has none."""
        self.of = of
        self.log = PostgresLog(pool, of.log)
        self.history = HistoryAudit(of.log, of.database, of.aggregates)
        self.twin = TwinAudit(client, of.log, of.owner)
        self.views = [view for view in views if view.log == of.log]
        self.timeline = timeline
        self.findings = Findings()
        """What was found in events that are not read again."""
        self.checked: Counter[str] = Counter()
        self._books = books
        self._followers = [follower for follower in followers if follower.log == of.log]
        self._actors = {follower.consumer: follower for follower in followers}
        self._schema = Schema()
        self._early: deque[tuple[str, int, str]] = deque()
        """Effects whose causes are beyond their log's cut: that log, the cause's position, the case."""

    def in_flight(self) -> Iterator[str]:
        """Cases that this log's events show to be in flight."""
        for follower in self._followers:
            yield from follower.in_flight()
        yield from (case for _, _, case in self._early)

    async def read(self, cuts: Mapping[str, Cut], heads: Mapping[str, int], seen: Mapping[str, int]) -> None:
        """Reads up to the cut's head, from wherever the part that is furthest behind stands.

        ``cuts`` by database; ``seen``: the head of each log in its cut; ``heads``: the same, read later.
        """
        cut = cuts[self.of.database]
        self._early = deque(early for early in self._early if early[1] > seen[early[0]])
        for follower in self._followers:
            follower.begin(cuts[follower.database].reached(follower.consumer), self.findings)
        for view in self.views:
            view.begin()
        if self.timeline:
            await self.timeline.compare_replayed(cuts[self.timeline.database].connection, self.findings)
        for event_id, positions in await cut.doubled_ids(self.history.position):
            self._doubled(event_id, positions)
        self.history.begin(await cut.snapshots())
        position = self._start(cuts, cut.head)
        while position < cut.head:
            events = [e for e in await self.log.read(position, BATCH) if e.position <= cut.head]
            if not events:
                break
            await self._compare(events, cuts)
            self._take(events, heads, seen)
            await self._compare_snapshots(cut)
            position = events[-1].position
        self.history.end(cut.head, await cut.newest(), self.findings)

    def _start(self, cuts: Mapping[str, Cut], head: int) -> int:
        positions = [self.history.position]
        if self.twin.position < min(self.twin.state.last, head):
            positions.append(self.twin.position)
        for view in self.all_views():
            if view.position < min(cuts[view.database].reached(view.consumer), head):
                positions.append(view.position)
        return min(positions)

    def all_views(self) -> list[ViewAudit | TimelineAudit]:
        """What is kept of this log."""
        return [*self.views, self.timeline] if self.timeline else [*self.views]

    async def _compare(self, events: Sequence[Recorded], cuts: Mapping[str, Cut]) -> None:
        """What has a position of its own: the twin and the views."""
        self.checked["twin messages"] += await self.twin.compare(events, self.findings)
        decoded = [(event, self._decode(event)) for event in events]
        for view in self.views:
            upto = cuts[view.database].reached(view.consumer)
            for event, messages in decoded:
                if view.position < event.position <= upto:
                    view.take(event, messages, self.findings)
        if self.timeline is None:
            return
        views = cuts[self.timeline.database]
        self.checked["view rows"] += await self.timeline.compare(
            views.connection, decoded, views.reached(self.timeline.consumer), self.findings
        )

    def _decode(self, event: Recorded) -> Sequence[Message]:
        try:
            return self._schema.decode(event)
        except (UnknownEventType, UndecodableEvent):
            return ()  # the history tells

    def _take(self, events: Sequence[Recorded], heads: Mapping[str, int], seen: Mapping[str, int]) -> None:
        for event in events:
            if event.position > self.history.position:
                self.checked["events"] += 1
                for change in self.history.take(event, self.findings):
                    case = self._books.take(change, self.findings)
                    self._follow(change, case, heads, seen)

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

    async def _compare_snapshots(self, cut: Cut) -> None:
        while self.history.captured:
            key, state = self.history.captured.pop()
            self.checked["snapshots"] += 1
            stored = await cut.snapshot(key.stream)
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
