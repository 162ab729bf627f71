"""The shop's auditor on the shop's servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg

from proof.auditor.domain import Shop
from proof.auditor.shop import DATABASES, VIEWS_DATABASE, system
from twinlog import Clock, ConfigurationError, TwinlogError
from twinlog.audit import GRACE, Report
from twinlog.audit import Auditor as SystemAuditor
from twinlog.testing.internals import (
    Build,
    NatsClient,
    Pool,
    PostgresLog,
    StoreClock,
    SystemClock,
    builds_in,
    check_url,
    connect,
    database_url,
    open_pool,
    outages,
)

_REACH_SECONDS = 5.0


class CannotAudit(TwinlogError):
    """Cannot audit: {why}"""

    reason = "CANNOT_AUDIT"


class Auditor(SystemAuditor):
    """Audits the shop round by round."""

    def __init__(
        self,
        client: NatsClient,
        pools: Mapping[str, Pool],
        *,
        grace: timedelta = GRACE,
        at_rest: bool = False,
        clock: Clock | None = None,
        builds: Sequence[Build] = (),
    ) -> None:
        """``pools`` by database. ``grace``: how long an order or a saga may be overdue before that is a violation.
        ``at_rest``: no service is running, so that deadlines may pass. ``builds``: those of the projector's views.
        """
        clock = clock or SystemClock()
        super().__init__(system(clock, builds), Shop(grace), client, pools, at_rest=at_rest, clock=clock)


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
            builds = await builds_in(pools[VIEWS_DATABASE])
        yield Auditor(client, pools, grace=grace, at_rest=at_rest, clock=clock, builds=builds)


async def audit(
    postgres_url: str,
    nats_url: str,
    *,
    wait_seconds: float = 0.0,
    grace: timedelta = GRACE,
    at_rest: bool = False,
) -> Report:
    """Audits until the system is settled, for up to ``wait_seconds``; returns the last report.

    Raises CannotAudit where a server or a database is missing, Unavailable where a server goes away.
    """
    async with open_auditor(postgres_url, nats_url, grace=grace, at_rest=at_rest) as auditor:
        return await auditor.until_settled(wait_seconds)


async def _reach(postgres_url: str) -> None:
    try:
        check_url(postgres_url)
    except ValueError as error:
        raise CannotAudit(why=f"POSTGRES_URL is wrong: {error}") from None
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
