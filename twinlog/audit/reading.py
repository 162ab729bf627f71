"""One pass over one log, in which everything that is compared with its events takes part."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from google.protobuf.message import Message

from twinlog.audit.database_snapshots import DatabaseSnapshot
from twinlog.audit.dead_letters import out_of_order
from twinlog.audit.domain import Domain
from twinlog.audit.followers import Follower
from twinlog.audit.history import Change, HistoryAudit
from twinlog.audit.report import Findings
from twinlog.audit.system import AuditedLog
from twinlog.audit.twins import TwinAudit
from twinlog.audit.views import UNREAD, RowsAudit
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.jetstream.client import NatsClient
from twinlog.log.installation import Identity
from twinlog.log.repair import GivenUp
from twinlog.model.errors import UndecodableEvent, UnknownEventType, named
from twinlog.model.event import Recorded, StreamId
from twinlog.model.schema import Schema
from twinlog.postgres.connection import Pool
from twinlog.postgres.log import PostgresLog

BATCH = 2_000
"""Events read at once."""

_LOW = 2**64 - 1
"""The half of an id that is random, whatever made it."""

IDS = "event ids unique"
CAUSES = "causes exist"
ARCHIVED = "archived events are known to their streams"


GoneEvents = Sequence[tuple[GivenUp, datetime]]
"""What repairs gave up of a log, and when."""


class Reading:
    def __init__(
        self,
        of: AuditedLog,
        client: NatsClient,
        pool: Pool,
        domain: Domain,
        followers: Sequence[Follower],
        views: Sequence[RowsAudit],
        namespace: str = "",
    ) -> None:
        """``followers`` and ``views`` of all logs."""
        self.of = of
        self.log = PostgresLog(pool, of.log)
        self.history = HistoryAudit(of.log, of.database, of.aggregates, of.schema)
        self.twin = TwinAudit(client, of.log, of.owner, namespace)
        self.views = [view for view in views if view.log == of.log]
        self.findings = Findings()
        """What was found in events that are read only once."""
        self.checked: Counter[str] = Counter()
        self._domain = domain
        self._followers = [follower for follower in followers if follower.log == of.log]
        self._actors = _by_actor(followers)
        self._ids: array[int] | None = None
        """What tells the ids of events apart, by position; None: the database has them all."""
        self._judged = 0
        self._told: set[str] = set()
        self._early: deque[tuple[str, int, str]] = deque()
        """Effects of causes beyond what was read of the cause's log: that log, the cause's position, the case."""
        self._gone: Mapping[str, GoneEvents] = {}
        self.excused: dict[str, str] = {}
        """What a repair gave up, by the case that goes on without."""

    def in_flight(self) -> Iterator[str]:
        """The cases that this log's events show to be in flight."""
        for follower in self._followers:
            yield from follower.in_flight()
        yield from (case for _, _, case in self._early)

    async def look(self, identity: Identity | None) -> None:
        """Reads how far the twin reaches, and how far it may be trimmed."""
        await self.twin.look(identity)
        self.twin.trimmed = await self.log.trimmed()

    async def read(
        self,
        databases: Mapping[str, DatabaseSnapshot],
        heads: Mapping[str, int],
        seen: Mapping[str, int],
        gone: Mapping[str, GoneEvents] = {},
    ) -> None:
        """Reads up to the snapshot's head, from where the part that is furthest behind stands.

        ``databases`` by name. ``seen`` has the head of each log in its snapshot, ``heads`` the same, read later;
        ``gone``, what repairs gave up of each log.
        """
        self._gone = gone
        own = databases[self.of.database]
        self._early = deque(early for early in self._early if early[1] > seen[early[0]])
        for follower in self._followers:
            follower.begin(databases[follower.database].reached(follower.consumer), self.findings)
        for view in self.views:
            await view.begin(databases[view.database].connection, self.findings)
        for event_id, positions in await own.doubled_ids(self.history.position):
            self._doubled(event_id, positions)
        if not self.history.position and await self.log.archived_upto():
            self._ids = array("Q")
        seen_versions = {stream: head.version for stream, head in self.history.heads.items()}
        self.history.begin(await own.snapshots(), await own.kept_snapshots(seen_versions))
        position = self._start(databases, own.head)
        while position < own.head:
            events = [e for e in await self.log.read(position, BATCH) if e.position <= own.head]
            if not events:
                break
            await self._compare(events, databases)
            self._take(events, heads, seen)
            await self._compare_snapshots(own)
            position = events[-1].position
        if self._ids is not None and len(self._ids) != self._judged:
            self._judge_archive(*await own.archived_places())
            await self._judge_ids()
            self._judged = len(self._ids)
        self.history.end(own.head, await own.newest(), self.findings)

    def _start(self, databases: Mapping[str, DatabaseSnapshot], head: int) -> int:
        positions = [self.history.position]
        if self.twin.position < min(self.twin.state.last, head):
            positions.append(self.twin.position)
        for view in self.views:
            if view.position < min(databases[view.database].reached(view.consumer), head):
                positions.append(view.position)
        return min(positions)

    async def _compare(self, events: Sequence[Recorded], databases: Mapping[str, DatabaseSnapshot]) -> None:
        """Compares the events with what has its own position: the twin and the views."""
        self.checked["twin messages"] += await self.twin.compare(events, self.findings)
        by_schema = {self.of.schema: [(event, _decode(event, self.of.schema)) for event in events]}
        for view in self.views:
            schema = view.schema or self.of.schema
            if schema not in by_schema:
                by_schema[schema] = [(event, _decode(event, schema)) for event in events]
            database = databases[view.database]
            self.checked["view rows"] += await view.follow(
                database.connection, by_schema[schema], database.reached(view.consumer), self.findings
            )

    async def compare_views(self, databases: Mapping[str, DatabaseSnapshot], findings: Findings) -> None:
        """Compares the views, each as a whole; one that was read after its log, and is ahead, in a later round."""
        for view in self.views:
            database = databases[view.database]
            reached = database.reached(view.consumer)
            if reached <= databases[self.of.database].head:
                self.checked["view rows"] += await view.compare(database.connection, reached, findings)

    def _take(self, events: Sequence[Recorded], heads: Mapping[str, int], seen: Mapping[str, int]) -> None:
        for event in events:
            if event.position > self.history.position:
                self.checked["events"] += 1
                if self._ids is not None:
                    self._ids.append(event.event_id.int & _LOW)
                for change in self.history.take(event, self.findings):
                    self._follow(change, self._enter(change), heads, seen)

    def _enter(self, change: Change) -> str:
        """Tells the domain of a change; gives its case."""
        try:
            return self._domain.take(change, self.findings)
        except Exception as error:  # what an event says may be anything, where something else wrote it
            self.history.give_up(change.event, named(error), self.findings)
            return ""

    def _follow(self, change: Change, case: str, heads: Mapping[str, int], seen: Mapping[str, int]) -> None:
        event, message = change.event, change.message
        for follower in self._followers:
            follower.take(event, message, case, self.findings)
        for view in self.views:
            view.note(event, message)
        log, _, number = event.metadata.causation_id.partition("/")
        if log not in heads or not number.isdecimal():
            return
        position = int(number)
        for span, at in self._gone.get(log, ()):
            if span.first <= position <= span.last and event.recorded_at < at:
                self.excused[case] = f"a repair gave up {log}/{number}, which {event.address} came from"
                return
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
        actor = self._actors.get((event.metadata.actor, log))
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
            self.checked["kept snapshots" if key.event_id else "snapshots"] += 1
            self.history.judge_snapshot(key, state, await own.stored(key), self.findings)

    def _judge_archive(self, archived: int, in_table: int, named: int) -> None:
        if in_table + named != archived:
            of = self.of
            self.findings.add(
                ARCHIVED,
                f"of events 1 to {archived} of log {of.log}, {in_table} are in table events, and table "
                f"archived_streams names {named}: together that is not each of them once",
                ids=[of.log],
                remedy=f"restore table archived_streams from a backup of {of.database}",
            )

    async def _judge_ids(self) -> None:
        """Where events are in an archive, the database alone cannot tell which ids stand twice."""
        in_order = sorted(self._ids or ())
        for one in {one for one, next in pairwise(in_order) if one == next}:
            found = await self._events_of(one)
            self._doubled(str(found[0].event_id), [event.position for event in found])

    async def _events_of(self, low: int) -> Sequence[Recorded]:
        positions = [at for at, one in enumerate(self._ids or (), 1) if one == low]
        return [event for at in positions for event in await self.log.read(at - 1, 1)]

    def _doubled(self, event_id: str, positions: Sequence[int]) -> None:
        if event_id in self._told:
            return
        self._told.add(event_id)
        self.findings.add(
            IDS,
            f"event id {event_id} stands {len(positions)} times in log {self.of.log}",
            ids=[event_id],
            events=[f"{self.of.log}/{position}" for position in positions],
            remedy=f"append events that correct the later ones; find what wrote to {self.of.database} besides "
            f"{self.of.owner}",
        )


def _decode(event: Recorded, schema: Schema) -> Sequence[Message]:
    try:
        return schema.decode(event)
    except (UnknownEventType, UndecodableEvent):
        return UNREAD  # the audit of the history reports it


def _by_actor(followers: Sequence[Follower]) -> Mapping[tuple[str, str], Follower]:
    """By actor and log; those that share both are left out, since events name the actor only."""
    found: defaultdict[tuple[str, str], list[Follower]] = defaultdict(list)
    for follower in followers:
        found[follower.actor, follower.log].append(follower)
    return {key: several[0] for key, several in found.items() if len(several) == 1}
