"""The audit: one pass over each log, compared with its twin, its views, its consumers and the other logs.

**Checked always**, because one transaction or one log decides it: positions, versions and event ids; that events
decode, fold and have the right partition key; the messages of the twin, up to its last; that twins, checkpoints,
requests and causes point into the log; that no checkpoint is behind its own effects; views at their own checkpoints;
timers and snapshots against the states of the same instant; and what the domain says of single events.

**Checked for quiet cases only**: what two logs must agree on, which the domain knows. A case is quiet when every
consumer's checkpoint is past the case's events that the consumer has to act on, and every event of the case has a cause
that was read. So work in flight is never mistaken for a fault, and a fault in a case at rest is found while other cases
move.

**Settled** is a system in which every case is quiet: every twin and view is at its log's head, every consumer is past
the last event that concerns it, no event is parked, and the domain waits for nothing.

**Streams that cannot be read**, because the auditor knows no such event or cannot parse it, are reported; what depends
on their states is not judged.

**Parked events** are in flight, and so are their cases; a view is compared without them. A *discarded* event excuses
what it leaves open, which is noted, as what an operator skipped is; and so do events that a repair gave up.

Each database is read in one REPEATABLE READ transaction, each log up to the head in it. A twin's figures are read
before the heads, and checkpoints are compared with heads read after them, so that neither can seem ahead in a running
system. Memory holds the folded state of every stream and row, about 4 kB per order, and the events that are parked or
were replayed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from twinlog.audit.chain import NOTED, ChainAudit
from twinlog.audit.database_snapshots import DatabaseSnapshot, database_snapshot
from twinlog.audit.dead_letters import DeadLetterAudit, DeadLettersByConsumer
from twinlog.audit.domain import Domain, Round
from twinlog.audit.followers import WITHIN, set_checkpoint
from twinlog.audit.history import GAPLESS
from twinlog.audit.reading import Reading
from twinlog.audit.report import Figures, Findings, Report, roots_first
from twinlog.audit.system import System
from twinlog.audit.twins import NOT_AHEAD
from twinlog.jetstream.client import NatsClient
from twinlog.log.chain import Head
from twinlog.log.signing import is_signed, public_key
from twinlog.log.system import SystemClock
from twinlog.model.clock import Clock
from twinlog.model.errors import ConfigurationError
from twinlog.model.event import StreamId
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.identity import identity
from twinlog.postgres.indexes import astray
from twinlog.postgres.meaning import outages
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.urls import psql

GRACE = timedelta(seconds=15)
"""How long anything may be overdue before that is a violation, by default."""

REQUESTS = "requests point into the log"
GUARDED = "logs take inserts only"
INDEXED = "tables have their indexes"

_ROOTS = {NOT_AHEAD, GAPLESS}
"""A log that lost events, which its stream may give back."""
_AGAIN_SECONDS = 0.25


class Auditor:
    """Audits round by round: the first round reads everything, each later one what is new. It writes nothing."""

    def __init__(
        self,
        system: System,
        domain: Domain,
        client: NatsClient,
        pools: Mapping[str, Pool],
        *,
        at_rest: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """``pools`` by database. ``at_rest``: no service is running, so that deadlines may pass."""
        self._system = system
        self._domain = domain
        self._pools = {name: pools[name] for name in system.databases}
        self._at_rest = at_rest
        self._clock = clock or SystemClock()
        self._dead_letters = DeadLettersByConsumer(system.sources)
        schemas = {of.log: of.schema for of in system.logs}
        self._dead_letter_audits = [
            DeadLetterAudit(of.log, self._dead_letters, schemas, domain.case_of) for of in system.logs
        ]
        self._followers = system.followers(self._dead_letters)
        self._checked: Counter[str] = Counter()
        views = system.views(self._dead_letters)
        self._readings = [
            Reading(of, client, pools[of.database], domain, self._followers, views, system.namespace)
            for of in system.logs
        ]

    async def round(self) -> Report:
        """Audits what is new. Raises Unavailable where a server goes away; the next round continues from there."""
        started, now, found = time.monotonic(), self._clock.now(), Findings()
        for note in self._system.notes:
            found.note(note)
        with outages():
            for reading in self._readings:
                await self._look(reading, found)
            async with AsyncExitStack() as stack:
                databases = {
                    name: await stack.enter_async_context(database_snapshot(pool))
                    for name, pool in self._pools.items()
                }
                heads = {reading.of.log: await reading.log.head() for reading in self._readings}
                seen = {of.log: databases[of.database].head for of in self._system.logs}
                logs = {reading.of.log: reading.log for reading in self._readings}
                for of, dead_letters in zip(self._system.logs, self._dead_letter_audits, strict=True):
                    await dead_letters.read(databases[of.database], logs)
                gone = {log: await each.given_up() for log, each in logs.items()}
                for reading in self._readings:
                    await reading.read(databases, heads, seen, gone)
                for reading in self._readings:
                    await self._judge(reading, databases, heads, found)
            self._judge_checkpoints(databases, heads, found)
        self._judge_domain(now, found)
        figures = self._figures(databases, seen)
        return self._report(found, figures, now, time.monotonic() - started)

    async def _look(self, reading: Reading, found: Findings) -> None:
        pool = self._pools[reading.of.database]
        await reading.look(await identity(pool))
        await judge_guards(pool, reading.of.log, reading.of.database, found)

    async def verify_chains(self, noted: Sequence[Head] = (), key_file: str | None = None) -> Report:
        """Verifies each log and its twin against its chain, and the chain against heads that were noted elsewhere.

        ``key_file``: the public key by which each of these has to be signed; None: signatures do not matter. It reads
        everything once, in bounded memory. Raises ConfigurationError and Unavailable.
        """
        if key_file and not noted:
            raise ConfigurationError(
                "--key: there is no head that it could have signed; give those you have with --head"
            )
        started, found = time.monotonic(), Findings()
        checked: Counter[str] = Counter()
        waiting: list[str] = []
        events: dict[str, int] = {}
        with outages():
            for reading in self._readings:
                await self._look(reading, found)
                log = reading.of.log
                heads = [head for head in noted if head.log == log]
                chain = ChainAudit(reading.log, reading.twin, heads, namespace=self._system.namespace)
                await chain.verify(found)
                checked += chain.checked
                events[log] = chain.newest.head if chain.newest else 0
                if chain.waiting:
                    waiting.append(
                        f"{chain.waiting} events of {log} have no link yet; its service seals them"
                    )
        logs = {reading.of.log for reading in self._readings}
        for head in noted:
            if head.log not in logs:
                remedy = f"the logs are {', '.join(sorted(logs))}"
                found.add(NOTED, f"head {head} is of a log that is not there", ids=[head.log], remedy=remedy)
        if key_file:
            key = public_key(key_file)
            for head in (head for head in noted if not is_signed(head, key)):
                remedy = "find out where the head comes from; do not rely on it"
                says = f"head {head} is not signed by the key in {key_file}"
                found.add(NOTED, says, ids=[head.log], remedy=remedy)
        figures = Figures(events=events, checked=checked)
        took = timedelta(seconds=time.monotonic() - started)
        return Report(found.kept, found.counts, figures, waiting, took, found.notes)

    async def until_settled(self, seconds: float = 0.0) -> Report:
        """Audits until the system is settled, for up to so many seconds; gives the last report."""
        until = time.monotonic() + seconds
        report = await self.round()
        while not report.settled and time.monotonic() < until:
            await asyncio.sleep(_AGAIN_SECONDS)
            report = await self.round()
        return report

    async def _judge(
        self,
        reading: Reading,
        databases: Mapping[str, DatabaseSnapshot],
        heads: Mapping[str, int],
        found: Findings,
    ) -> None:
        """Compares what can only be compared as a whole, once the log has been read."""
        own, of = databases[reading.of.database], reading.of
        reading.twin.judge(heads[of.log], found)
        reading.history.judge_snapshots(found)
        self._checked["timers"] += reading.history.judge_timers(await own.timers(), found)
        await reading.compare_views(databases, found)
        count, beyond = await own.requests()
        self._checked["requests"] += count
        for request_id, position in beyond:
            found.add(
                REQUESTS,
                f"the outcome of request {request_id} points to {of.log}/{position}, the log ends at {own.head}",
                ids=[request_id],
                events=[f"{of.log}/{position}"],
                remedy=f"{psql(of.database)} -c \"DELETE FROM requests WHERE request_id = '{request_id}'\"    "
                "# its client asks again",
            )

    def _judge_checkpoints(
        self, databases: Mapping[str, DatabaseSnapshot], heads: Mapping[str, int], found: Findings
    ) -> None:
        for database, each in databases.items():
            for consumer, position in each.checkpoints.items():
                log = self._dead_letters.source(consumer)
                self._checked["checkpoints"] += 1
                if log in heads and position > heads[log]:
                    found.add(
                        WITHIN,
                        f"checkpoint {consumer} is {position}, and log {log} ends at {heads[log]}",
                        ids=[consumer],
                        events=[f"{log}/{position}"],
                        remedy=set_checkpoint(database, consumer, heads[log]),
                    )
        for follower in self._followers:
            follower.judge(found)

    def _judge_domain(self, now: datetime, found: Findings) -> None:
        followed = [follower.dead_letters for follower in self._followers]
        given_up = [(each, one) for each in self._dead_letters.values() for one in each.discarded.values()]
        for of, one in given_up:
            found.note(f"{of.consumer} gave up {of.log}/{one.position}, which had no effect")
        in_flight = [case for reading in self._readings for case in reading.in_flight()]
        around = Round(
            now,
            self._at_rest,
            busy=bool(in_flight) or any(follower.lag for follower in self._followers),
            in_flight=set(in_flight),
            parked=[one for each in followed for one in each.parked.values()],
            discarded=[(of, one) for of, one in given_up if of in followed],
            unreadable=self._unreadable(),
            due={stream: due for each in self._readings for stream, due in each.history.due.items()},
            state=self._state,
            checked=self._checked,
            excused={case: why for each in self._readings for case, why in each.excused.items() if case},
        )
        self._domain.judge(around, found)

    def _state(self, stream: StreamId) -> Any:
        for reading in self._readings:
            if head := reading.history.heads.get(stream):
                return head.state
        return None

    def _unreadable(self) -> Sequence[StreamId]:
        return [stream for reading in self._readings for stream in reading.history.unreadable()]

    def _parked(self) -> Mapping[str, int]:
        return {each.consumer: len(each.parked) for each in self._dead_letters.values() if each.parked}

    def _figures(self, databases: Mapping[str, DatabaseSnapshot], seen: Mapping[str, int]) -> Figures:
        lags: dict[str, int] = {}
        for view in (view for reading in self._readings for view in reading.views):
            lag = max(0, view.wanted - databases[view.database].reached(view.consumer))
            lags[view.consumer] = max(lag, lags.get(view.consumer, 0))
        return Figures(
            events=seen,
            twin_lag={r.of.log: max(0, seen[r.of.log] - r.twin.state.last) for r in self._readings},
            consumer_lag={follower.consumer: follower.lag for follower in self._followers},
            view_lag=lags,
            streams=sum(len(reading.history.heads) for reading in self._readings),
            domain=self._domain.figures(),
            parked=self._parked(),
            checked=sum((reading.checked for reading in self._readings), Counter(self._checked)),
        )

    def _report(self, found: Findings, figures: Figures, now: datetime, took: float) -> Report:
        all_found = [each.findings for each in self._dead_letter_audits]
        all_found += [*(reading.findings for reading in self._readings), found]
        return Report(
            roots_first([violation for findings in all_found for violation in findings.kept], _ROOTS),
            sum((findings.counts for findings in all_found), Counter()),
            figures,
            [*_behind(figures), *self._on_their_way(now)],
            timedelta(seconds=took),
            found.notes,
        )

    def _on_their_way(self, now: datetime) -> Iterator[str]:
        yield from self._domain.on_their_way(now)
        if unreadable := self._unreadable():
            yield f"what depends on {len(unreadable)} streams that cannot be read"
        for consumer, parked in self._parked().items():
            yield f"{consumer} has {parked} parked events"


def _behind(figures: Figures) -> Iterator[str]:
    for log, lag in figures.twin_lag.items():
        if lag:
            yield f"stream {log} lags {lag} events"
    for consumer, lag in (*figures.consumer_lag.items(), *figures.view_lag.items()):
        if lag:
            yield f"{consumer} lags {lag} events"


async def judge_guards(pool: Pool, log: str, database: str, findings: Findings) -> None:
    """Names each table of a log in which events could be changed without a word, and each index that is gone or not
    whole. Raises Unavailable."""
    for (table,) in await fetch(pool, QUERIES["unguarded"]):
        trigger = (
            f"CREATE OR REPLACE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        findings.add(
            GUARDED,
            f"{log}: trigger insert_only of table {table} in {database} is switched off, or gone",
            ids=[log, table],
            remedy=f'{psql(database)} -c "{trigger}"    # and see `twinlog audit --chain`',
        )
    for index in await astray(partial(fetch, pool)):
        findings.add(
            INDEXED,
            f"{log}: {index.why}, in {database}",
            ids=[log, index.name],
            remedy=f'{psql(database)} -c "{index.statement}"    # it locks the table for as long as it takes',
        )
