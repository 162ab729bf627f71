"""Audits the services of a project, as their own programs wire them; or chains, of services known by address only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

from twinlog.audit.auditor import GRACE, Auditor
from twinlog.audit.database_snapshots import TableRows
from twinlog.audit.dead_letters import DeadLettersByConsumer
from twinlog.audit.domain import Domain, Domains
from twinlog.audit.followers import Follower
from twinlog.audit.sagas import Sagas
from twinlog.audit.shared_views import SharedRows, SharedViewAudit
from twinlog.audit.survey import CONNECTIONS, CannotAudit, Wired, reach, surveyed
from twinlog.audit.system import AuditedLog, System
from twinlog.audit.views import RowsAudit, ViewAudit
from twinlog.consume import Consumer
from twinlog.consume.dead_letters import DEAD_LETTERS
from twinlog.consume.effects import EffectConsumer
from twinlog.consume.policies import PolicyConsumer
from twinlog.consume.projection import Projection
from twinlog.jetstream.connection import close, reached
from twinlog.log.system import StoreClock, SystemClock
from twinlog.log.view_store import Build
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView
from twinlog.postgres.connection import Pool, open_pool
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.meaning import outages
from twinlog.postgres.urls import database_url, psql
from twinlog.postgres.view_builds import builds_in, quoted
from twinlog.postgres.views import PostgresViews
from twinlog.service.runtime import Main


@asynccontextmanager
async def open_auditor(
    mains: Mapping[str, Main],
    *,
    grace: timedelta = GRACE,
    at_rest: bool = False,
    domain: Domain | None = None,
) -> AsyncIterator[Auditor]:
    """An auditor of the services of these programs, by module; their settings say where the servers are.

    ``domain``: what the project adds. Raises ConfigurationError and Unavailable.
    """
    async with surveyed(mains) as services:
        if not services:
            raise CannotAudit(why="no program has opened a service; call open_service in its main")
        for each in services:
            add_builds(each.consumers, await builds_in(each.pool))
        system = system_of(services)
        client = await reached(services[0].settings.nats_url, "auditor")
        try:
            clock = StoreClock(PostgresLog(services[0].pool, services[0].spec.log).time, SystemClock())
            with outages():
                await clock.measure()
            pools = {each.database: each.pool for each in services}
            owners = {one.name: each.spec.name for each in services for one in each.spec.aggregates}
            sagas = Sagas([one for of in system.logs for one in of.aggregates], grace, owners)
            everything = Domains([sagas, domain] if domain else [sagas])
            yield Auditor(system, everything, client, pools, at_rest=at_rest, clock=clock)
        finally:
            await close(client)


def system_of(services: Sequence[Wired]) -> System:
    """What there is to audit of wired services. Raises CannotAudit."""
    logs = [
        AuditedLog(
            each.spec.log,
            each.spec.name,
            each.database,
            [*each.spec.aggregates, DEAD_LETTERS],
            each.spec.schema,
        )
        for each in services
    ]
    for what, names in (("log", [of.log for of in logs]), ("database", [of.database for of in logs])):
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise CannotAudit(why=f"two services have the {what} {', '.join(twice)}; give each its own")
    return System(
        logs,
        _in_order(services),
        lambda dead: [*_followers(services, dead)],
        lambda dead: [view for view, _ in _views(services, dead)],
        services[0].settings.twinlog_namespace,
        {consumer.name: consumer.source for each in services for consumer in each.consumers},
        list(dict.fromkeys(note for _, note in _views(services, DeadLettersByConsumer()) if note)),
    )


def _in_order(services: Sequence[Wired]) -> Sequence[str]:
    """Databases with views of other logs first."""
    shows = {
        each.database: any(
            isinstance(one, Projection) and one.source != each.spec.log for one in each.consumers
        )
        for each in services
    }
    return sorted(shows, key=lambda database: not shows[database])


def _followers(services: Sequence[Wired], dead_letters: DeadLettersByConsumer) -> Iterator[Follower]:
    for each in services:
        for one in each.consumers:
            if isinstance(one, PolicyConsumer | EffectConsumer):
                yield Follower(one.actor, each.database, dead_letters[one.name], one.calls_for_something)


def _views(services: Sequence[Wired], dead_letters: DeadLettersByConsumer) -> Iterator[tuple[RowsAudit, str]]:
    """Each view as it is followed, and why its rows are not compared; empty: they are."""
    for each in services:
        shared: dict[str, SharedRows] = {}
        for one in each.consumers:
            for view in one.kept if isinstance(one, Projection) else ():
                assert isinstance(one, Projection)
                yield _view(each, one, view, dead_letters, shared)


def _view(
    service: Wired,
    projection: Projection,
    view: AnyView,
    dead_letters: DeadLettersByConsumer,
    shared: dict[str, SharedRows],
) -> tuple[RowsAudit, str]:
    """``shared``: the rows that several logs change, by the name of their view."""
    store = projection.store
    rows = TableRows.of(view, store) if isinstance(store, PostgresViews) else None
    if rows is None or not isinstance(store, PostgresViews):
        followed = RowsAudit(
            view,
            log=projection.source,
            consumer=projection.name,
            database=service.database,
            routing_key=projection.projected_key,
        )
        return followed, f"view {view.name} is not compared: its store has no query {view.name}_rows"
    remedy = _rebuild(service, projection)
    parts: dict[str, Any] = {
        "log": projection.source,
        "dead_letters": dead_letters[projection.name],
        "database": service.database,
        "routing_key": projection.projected_key,
        "schema": service.spec.schema,
        "remedy": remedy,
    }
    if _shown_by(service.consumers, view, store.place) > 1:
        together = shared.setdefault(f"{store.place}/{view.table}", SharedRows(view, rows, remedy))
        return SharedViewAudit(view, rows, shared=together, **parts), ""
    return ViewAudit(view, rows, **parts), ""


def _rebuild(service: Wired, projection: Projection) -> str:
    """The command after which a projection makes its views again."""
    if isinstance(store := projection.store, PostgresViews) and store.place:
        view, _, number = store.place.rpartition("@")
        return (
            f"twinlog views drop {view} {number}    # where it is live: first twinlog views rebuild {view} and twinlog "
            f"views switch {view} --confirm"
        )
    several = [view.table for view in projection.kept if _shown_by(service.consumers, view) > 1]
    wipe = "; ".join(f"TRUNCATE {quoted(view.table)}".replace('"', "") for view in projection.kept)
    return (
        f"{psql(service.database)} -1 -c \"{wipe}; DELETE FROM checkpoints WHERE consumer = '{projection.name}'\""
        f"    # with {service.spec.name} stopped; it makes the view again"
        + (f"; so for every consumer that keeps {', '.join(several)}" if several else "")
    )


def _shown_by(consumers: Sequence[Consumer], view: AnyView, place: str = "") -> int:
    """How many consumers keep a view in a place."""
    return sum(
        isinstance(one, Projection)
        and view.table in [each.table for each in one.kept]
        and getattr(one.store, "place", "") == place
        for one in consumers
    )


def add_builds(consumers: list[Consumer], builds: Sequence[Build]) -> None:
    """Adds the consumers of builds beside the home, and takes out homes that were dropped."""
    homes = {build.view: 0 if build.dropped else build.version for build in builds if build.home}
    for one in [each for each in consumers if isinstance(each, Projection)]:
        for build in builds:
            for view in one.tables:
                if (view.name, view.version) == (build.view, build.version) and not (
                    build.home or build.dropped
                ):
                    consumers.append(one.of_build(view, build))
        if any(view.name in homes for view in one.tables):
            one.keep([view for view in one.tables if homes.get(view.name, view.version) == view.version])


@asynccontextmanager
async def open_chain_auditor(
    logs: Sequence[AuditedLog], postgres_url: str, nats_url: str, *, namespace: str = ""
) -> AsyncIterator[Auditor]:
    """An auditor that knows no more of these logs than their names: :meth:`Auditor.verify_chains` is what it is for.

    Raises CannotAudit, ConfigurationError and Unavailable.
    """
    system = System(logs, [of.database for of in logs], lambda _dead: [], lambda _dead: [], namespace)
    pools: dict[str, Pool] = {}
    async with AsyncExitStack() as stack:
        for of in logs:
            url = database_url(postgres_url, of.database)
            await reach(url, of.database, of.owner)
            pools[of.database] = await stack.enter_async_context(
                open_pool(url, size=CONNECTIONS, waits=False)
            )
        client = await reached(nats_url, "auditor")
        stack.push_async_callback(close, client)
        yield Auditor(system, Domain(), client, pools)


def known_by_name(service: str, log: str, database: str) -> AuditedLog:
    """A log of which nothing is decoded. ``database``: as it is called on its server."""
    return AuditedLog(log, service, database, [], Schema())
