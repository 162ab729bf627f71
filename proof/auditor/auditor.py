"""The audit: one pass over each log, compared with its twin, its views, its consumers and the other logs.

**Checked always**, because one transaction or one log decides it: positions, versions and event ids; that events
decode, fold and have the right partition key; the messages of the twin, up to its last; that twins, checkpoints,
requests and causes point into the log; that no checkpoint is behind its own effects; views at their own checkpoints;
timers and snapshots against the states of the same instant; what no decider may decide (a transition from the wrong
state, a reservation beyond the limit, a saga that ends with an open step); and deadlines, while services are running.

**Checked for quiet cases only**: what two logs must agree on. A case is an order with everything that follows from it.
It is quiet when every consumer's checkpoint is past the case's events that the consumer has to act on, and every event
of the case has a cause that was read. So work in flight is never mistaken for a fault, and a fault in a case at rest is
found while other cases move.

**Settled** is a system in which every case is quiet: every twin and view is at its log's head, every consumer is past
the last event that concerns it, no event is parked, and every order and saga has ended or is overdue.

**Streams that cannot be read**, because the auditor knows no such event or cannot parse it, are reported; what depends
on their states is not judged.

**Parked events** are in flight, and so are their cases; a view is compared without them. A *discarded* event excuses
what it leaves open, which is noted, as what an operator skipped is.

Each database is read in one REPEATABLE READ transaction, each log up to the head in it. A twin's figures are read
before the heads, and checkpoints are compared with heads read after them, so that neither can seem ahead in a running
system. Memory holds the folded state of every stream and row, about 4 kB per order, and the events that are parked or
were replayed.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta

import asyncpg

from customer_svc.domain import Customer
from proof.auditor.database_snapshots import DatabaseSnapshot, database_snapshot
from proof.auditor.dead_letters import DeadLetter, DeadLetterAudit, DeadLettersByConsumer, discards
from proof.auditor.followers import WITHIN, set_checkpoint
from proof.auditor.ledger import Ledger
from proof.auditor.reading import Reading
from proof.auditor.report import Figures, Findings, Report
from proof.auditor.shop import DATABASES, HOMES, LOGS, SCHEMA, VIEWS_DATABASE, followers, timelines, views
from twinlog import Clock, ConfigurationError, StreamId, TwinlogError
from twinlog.testing.internals import (
    NatsClient,
    Pool,
    PostgresLog,
    StoreClock,
    SystemClock,
    connect,
    database_url,
    identity,
    open_pool,
    outages,
)

GRACE = timedelta(seconds=15)
"""How long an order or a saga may be overdue before that is a violation, by default."""

REQUESTS = "requests point into the log"

_REACH_SECONDS = 5.0
_AGAIN_SECONDS = 0.25


class CannotAudit(TwinlogError):
    """Cannot audit: {why}"""

    reason = "CANNOT_AUDIT"


class Auditor:
    """Audits round by round: the first round reads everything, each later one what is new."""

    def __init__(
        self,
        client: NatsClient,
        pools: Mapping[str, Pool],
        *,
        grace: timedelta = GRACE,
        at_rest: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """``pools`` by database. ``at_rest``: no service is running, so that deadlines may pass."""
        self._pools = pools
        self._at_rest = at_rest
        self._clock = clock or SystemClock()
        self._ledger = Ledger(grace)
        self._dead_letters = DeadLettersByConsumer()
        self._dead_letter_audits = [DeadLetterAudit(of.log, self._dead_letters, SCHEMA) for of in LOGS]
        self._followers = followers(self._clock, self._dead_letters)
        self._checked: Counter[str] = Counter()
        folded, shown = views(self._dead_letters), timelines(self._dead_letters)
        self._readings = [
            Reading(
                of,
                client,
                pools[of.database],
                self._ledger,
                self._followers,
                folded,
                shown.get(of.log),
                SCHEMA,
            )
            for of in LOGS
        ]

    async def round(self) -> Report:
        """Audits what is new. Raises Unavailable where a server goes away; the next round continues from there."""
        started, now, found = time.monotonic(), self._clock.now(), Findings()
        with outages():
            for reading in self._readings:
                await reading.twin.look(await identity(self._pools[reading.of.database]))
            async with AsyncExitStack() as stack:
                databases = {
                    name: await stack.enter_async_context(database_snapshot(pool))
                    for name, pool in self._pools.items()
                }
                heads = {reading.of.log: await reading.log.head() for reading in self._readings}
                seen = {of.log: databases[of.database].head for of in LOGS}
                logs = {reading.of.log: reading.log for reading in self._readings}
                for of, dead_letters in zip(LOGS, self._dead_letter_audits, strict=True):
                    await dead_letters.read(databases[of.database], logs)
                for reading in self._readings:
                    await reading.read(databases, heads, seen)
                for reading in self._readings:
                    await self._judge(reading, databases, heads, found)
            self._judge_checkpoints(databases, heads, found)
        self._judge_ledger(now, found)
        figures = self._figures(databases, seen)
        return self._report(found, figures, now, time.monotonic() - started)

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
        for view in reading.views:
            self._checked["view rows"] += await view.compare(databases[view.database].connection, found)
        if timeline := reading.timeline:
            views = databases[timeline.database]
            await timeline.judge_rest(views.connection, views.reached(timeline.consumer), found)
        count, beyond = await own.requests()
        self._checked["requests"] = self._checked["requests"] + count
        for request_id, position in beyond:
            found.add(
                REQUESTS,
                f"the outcome of request {request_id} points to {of.log}/{position}, the log ends at {own.head}",
                ids=[request_id],
                events=[f"{of.log}/{position}"],
                remedy=f"psql {of.database} -c \"DELETE FROM requests WHERE request_id = '{request_id}'\"    "
                "# its client asks again",
            )

    def _judge_checkpoints(
        self, databases: Mapping[str, DatabaseSnapshot], heads: Mapping[str, int], found: Findings
    ) -> None:
        for database, each in databases.items():
            for consumer, position in each.checkpoints.items():
                log = consumer.rpartition(".")[2]
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

    def _judge_ledger(self, now: datetime, found: Findings) -> None:
        in_flight = {case for reading in self._readings for case in reading.in_flight()}
        followed = [follower.dead_letters for follower in self._followers]
        in_flight |= self._unread(one for each in followed for one in each.parked.values())
        excused: dict[str, str] = {}
        for of_consumer, one in discards(self._dead_letters.values()):
            says = f"{of_consumer.consumer} gave up {of_consumer.log}/{one.position}"
            found.note(f"{says}, which had no effect")
            if of_consumer in followed:
                excused |= dict.fromkeys({one.case} if one.case else self._unread([one]), says)
        now_if_at_work = None if self._at_rest else now
        self._checked["cases"] += self._ledger.judge(
            in_flight, excused, self._customer, now_if_at_work, found, self._unreadable()
        )

    def _unreadable(self) -> list[StreamId]:
        """The streams that cannot be read to their end."""
        return [stream for reading in self._readings for stream in reading.history.unreadable()]

    def _unread(self, dead_letters: Iterable[DeadLetter]) -> set[str]:
        """The open cases that unreadable dead letters may be about: all cases of their customers."""
        return self._ledger.cases_of({one.key for one in dead_letters if not one.case})

    def _parked(self) -> Mapping[str, int]:
        return {each.consumer: len(each.parked) for each in self._dead_letters.values() if each.parked}

    def _customer(self, id: str) -> Customer | None:
        heads = next(reading.history.heads for reading in self._readings if reading.of is HOMES["customers"])
        head = heads.get(StreamId("customer", id))
        return head.state if head else None

    def _figures(self, databases: Mapping[str, DatabaseSnapshot], seen: Mapping[str, int]) -> Figures:
        customers = self._readings[1].history.heads
        keeps = {
            view.consumer: max(0, view.wanted - databases[view.database].reached(view.consumer))
            for reading in self._readings
            for view in reading.all_views()
        }
        checked = sum((reading.checked for reading in self._readings), Counter(self._checked))
        return Figures(
            events=seen,
            twin_lag={r.of.log: max(0, seen[r.of.log] - r.twin.state.last) for r in self._readings},
            consumer_lag={follower.consumer: follower.lag for follower in self._followers},
            view_lag=keeps,
            streams=sum(len(reading.history.heads) for reading in self._readings),
            customers=sum(
                isinstance(head.state, Customer) and head.state.exists for head in customers.values()
            ),
            orders={state: count for state, count in self._ledger.orders.items() if count},
            sagas={status: count for status, count in self._ledger.sagas.items() if count},
            parked=self._parked(),
            checked=checked,
        )

    def _report(self, found: Findings, figures: Figures, now: datetime, took: float) -> Report:
        all_found = [each.findings for each in self._dead_letter_audits]
        all_found += [*(reading.findings for reading in self._readings), found]
        return Report(
            [violation for findings in all_found for violation in findings.kept],
            sum((findings.counts for findings in all_found), Counter()),
            figures,
            [*_behind(figures), *self._on_their_way(now)],
            timedelta(seconds=took),
            found.notes,
        )

    def _on_their_way(self, now: datetime) -> Iterator[str]:
        orders, sagas = self._ledger.waiting(now)
        if orders:
            yield f"{orders} PENDING orders"
        if sagas:
            yield f"{sagas} running sagas"
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


@asynccontextmanager
async def open_auditor(
    postgres_url: str, nats_url: str, *, grace: timedelta = GRACE, at_rest: bool = False
) -> AsyncIterator[Auditor]:
    """An auditor of the shop on these servers, which writes nothing. Raises CannotAudit."""
    await _reach(postgres_url)
    async with AsyncExitStack() as stack:
        client = await _client(nats_url)
        stack.push_async_callback(client.close)
        pools = {
            name: await stack.enter_async_context(open_pool(database_url(postgres_url, name), size=2))
            for name in DATABASES
        }
        # The services' deadlines are those of their databases, whatever this machine's clock says.
        clock = StoreClock(PostgresLog(pools[VIEWS_DATABASE], "views").time, SystemClock())
        with outages():
            await clock.measure()
        yield Auditor(client, pools, grace=grace, at_rest=at_rest, clock=clock)


async def audit(
    postgres_url: str,
    nats_url: str,
    *,
    wait: float = 0.0,
    grace: timedelta = GRACE,
    at_rest: bool = False,
) -> Report:
    """Audits until the system is settled, for up to ``wait`` seconds; returns the last report.

    Raises CannotAudit where a server or a database is missing, Unavailable where a server goes away.
    """
    async with open_auditor(postgres_url, nats_url, grace=grace, at_rest=at_rest) as auditor:
        until = time.monotonic() + wait
        report = await auditor.round()
        while not report.settled and time.monotonic() < until:
            await asyncio.sleep(_AGAIN_SECONDS)
            report = await auditor.round()
        return report


async def _reach(postgres_url: str) -> None:
    for name in DATABASES:
        try:
            connection = await asyncpg.connect(database_url(postgres_url, name), timeout=_REACH_SECONDS)
        except (OSError, TimeoutError) as error:
            raise CannotAudit(why="no Postgres answers at POSTGRES_URL; start it, or `make run`") from error
        except asyncpg.InvalidCatalogNameError as error:
            raise CannotAudit(why=f"there is no database {name}; `make run` makes it") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise CannotAudit(why=f"Postgres refuses ({error})") from error
        try:
            with outages():
                found = await connection.fetchval("SELECT to_regclass('checkpoints')")
            if found is None:
                raise CannotAudit(why=f"database {name} has no tables yet; `make run` makes them")
        finally:
            await connection.close()


async def _client(nats_url: str) -> NatsClient:
    try:
        async with asyncio.timeout(_REACH_SECONDS):
            return await connect(nats_url, "auditor")
    except TimeoutError as error:
        raise CannotAudit(why="no NATS answers at NATS_URL; start it, or `make run`") from error
    except ConfigurationError as error:
        raise CannotAudit(why=str(error)) from error
