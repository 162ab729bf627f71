"""How services are wired, learned from their own ``main``: it is given a service that notes what is subscribed.

Nothing runs: no cursor, timer or relay begins, no address is listened at, and nothing is written.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from twinlog.consume import Consumer, ConsumerWrapper
from twinlog.log.installation import named
from twinlog.memory.twin import MemoryTwin
from twinlog.model.errors import ConfigurationError, WrongSetting
from twinlog.postgres.connection import Pool, open_pool
from twinlog.postgres.database import CONNECT_SECONDS, connect, is_missing
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.meaning import outages
from twinlog.postgres.urls import database_url
from twinlog.service.rehearsal import WIRED_SECONDS, Rehearsed, rehearse
from twinlog.service.runtime import Main
from twinlog.service.service import Service
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec

CONNECTIONS = 3
"""Of each pool: one has the database as it was at one instant, others read its log and what a wiring asks for."""


class CannotAudit(ConfigurationError):
    """Cannot audit: {why}"""

    reason = "CANNOT_AUDIT"


@dataclass
class Wired:
    """A service, and what it has subscribed."""

    spec: ServiceSpec
    settings: Settings
    database: str
    """As it is called on its server."""
    pool: Pool
    consumers: list[Consumer] = field(default_factory=list)
    """Without their middleware."""


@asynccontextmanager
async def surveyed(mains: Mapping[str, Main]) -> AsyncIterator[Sequence[Wired]]:
    """The services of these programs, by module, with their databases open during the block.

    Raises CannotAudit, ConfigurationError, and Unavailable where Postgres does not answer.
    """
    async with AsyncExitStack() as stack:
        found: list[Wired] = []

        @asynccontextmanager
        async def stand_in(spec: ServiceSpec, settings: Settings) -> AsyncIterator[Service]:
            database = named(settings.twinlog_namespace, settings.postgres_database or spec.database)
            url = database_url(settings.postgres_url, database)
            await reach(url, database, spec.name)
            pool = await stack.enter_async_context(open_pool(url, size=CONNECTIONS, waits=False))
            wired = Wired(spec, settings, database, pool)
            found.append(wired)
            yield _Surveyed(wired)

        for module, main in mains.items():
            try:
                await rehearse(main, stand_in)
            except TimeoutError as error:
                why = (
                    f"main of {module} did not come to its end within {WIRED_SECONDS:g} s; let it do nothing but "
                    "wire, and end with service.serve(…) or shutdown.wait()"
                )
                raise CannotAudit(why=why) from error
        yield found


async def reach(url: str, database: str, service: str) -> None:
    """Raises CannotAudit, ConfigurationError or Unavailable where a database is not there, or holds no log."""
    try:
        connection = await connect(url, timeout=CONNECT_SECONDS)
    except WrongSetting as error:
        if is_missing(error.__cause__):
            raise CannotAudit(
                why=f"there is no database {database}; {service} makes it when it starts"
            ) from error
        raise ConfigurationError(str(error)) from error
    try:
        with outages():
            if await connection.fetchval("SELECT to_regclass('checkpoints')") is None:
                why = f"database {database} has no tables yet; {service} makes them when it starts"
                raise CannotAudit(why=why)
    finally:
        await connection.close()


class _Surveyed(Rehearsed):
    """A service that only notes what it is wired to."""

    def __init__(self, wired: Wired) -> None:
        self._wired = wired
        super().__init__(wired.spec, wired.settings, PostgresLog(wired.pool, wired.spec.log), MemoryTwin)

    def _feed(self, consumer: Consumer, *_how: Any) -> Any:
        while isinstance(consumer, ConsumerWrapper):
            consumer = consumer.inner
        self._wired.consumers.append(consumer)
