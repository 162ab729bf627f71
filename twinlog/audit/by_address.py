"""Verifies the chains of services that are known by address only: their logs are read, their code is not needed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from twinlog.audit.auditor import Auditor
from twinlog.audit.domain import Domain
from twinlog.audit.survey import CONNECTIONS, reach
from twinlog.audit.system import AuditedLog, System
from twinlog.jetstream.connection import close, reached
from twinlog.model.schema import Schema
from twinlog.postgres.connection import Pool, open_pool
from twinlog.postgres.urls import database_url


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
            pools[of.database] = await stack.enter_async_context(open_pool(url, size=CONNECTIONS))
        client = await reached(nats_url, "auditor")
        stack.push_async_callback(close, client)
        yield Auditor(system, Domain(), client, pools)


def known_by_name(service: str, log: str, database: str) -> AuditedLog:
    """A log of which nothing is decoded. ``database``: as it is called on its server."""
    return AuditedLog(log, service, database, [], Schema())
