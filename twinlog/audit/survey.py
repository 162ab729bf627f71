"""How services are wired, learned from their own ``main``: it is given a service that notes what is subscribed.

Nothing runs: no cursor, timer or relay begins, no address is listened at, and nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from twinlog.audit.errors import CannotAudit
from twinlog.consume import Consumer, ConsumerWrapper
from twinlog.log.installation import named
from twinlog.log.lease import ALWAYS_HELD
from twinlog.log.system import RandomIds, SystemClock
from twinlog.memory.twin import MemoryTwin
from twinlog.model.errors import ConfigurationError, WrongSetting
from twinlog.postgres.connection import Pool, open_pool
from twinlog.postgres.database import CONNECT_SECONDS, connect, is_missing
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.meaning import outages
from twinlog.postgres.saga_list import PostgresSagaList
from twinlog.postgres.urls import database_url
from twinlog.rpc import PageTokens
from twinlog.service.process import STAND_IN
from twinlog.service.runtime import Main, Shutdown
from twinlog.service.service import Service
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec

_WIRED_SECONDS = 15.0
CONNECTIONS = 3
"""Of each pool: one has the database as it was at one instant, others read its log and what a wiring asks for."""


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
            pool = await stack.enter_async_context(open_pool(url, size=CONNECTIONS))
            wired = Wired(spec, settings, database, pool)
            found.append(wired)
            yield _Surveyed(wired)

        before = STAND_IN.set(stand_in)
        try:
            for module, main in mains.items():
                await _wire(module, main)
        finally:
            STAND_IN.reset(before)
        yield found


async def _wire(module: str, main: Main) -> None:
    """Calls a program's ``main`` up to where it would serve."""
    task = asyncio.current_task()
    assert task is not None
    try:
        async with asyncio.timeout(_WIRED_SECONDS):
            await main(_Stopping(task))
    except TimeoutError as error:
        why = (
            f"main of {module} did not come to its end within {_WIRED_SECONDS:g} s; let it do nothing but wire, "
            "and end with service.serve(…) or shutdown.wait()"
        )
        raise CannotAudit(why=why) from error


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


class _Stopping(Shutdown):
    """A process that is to stop at once, so that nothing is waited for."""

    @property
    def wanted(self) -> bool:
        return True

    async def wait(self) -> None:
        """Returns at once."""


class _Surveyed(Service):
    """A service that never runs; it only notes what it is wired to."""

    def __init__(self, wired: Wired) -> None:
        self._wired = wired
        spec = wired.spec
        log = PostgresLog(wired.pool, spec.log)
        super().__init__(
            spec.name,
            log,
            twin=MemoryTwin,
            lease=lambda _work: ALWAYS_HELD,
            schema=spec.schema,
            clock=SystemClock(),
            ids=RandomIds(),
            on_crash=lambda _task, _error: None,
            aggregates=spec.aggregates,
            saga_list=PostgresSagaList(log),
        )
        self.settings = wired.settings

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        work.close()

    async def page_tokens(self) -> PageTokens:
        return PageTokens(b"nobody is served")

    async def serve(self, *_services: Any, middleware: Any = ()) -> None:
        if self.sagas:
            self._saga_service(await self.page_tokens())  # which subscribes the kernel's own list

    def _feed(self, consumer: Consumer, *_how: Any) -> Any:
        while isinstance(consumer, ConsumerWrapper):
            consumer = consumer.inner
        self._wired.consumers.append(consumer)
