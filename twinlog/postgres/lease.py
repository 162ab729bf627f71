"""Leases as rows with an expiry."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import structlog

from twinlog._aio.tasks import to_its_end
from twinlog.model.errors import Unavailable
from twinlog.postgres.codecs import Connection as Connection
from twinlog.postgres.connection import _STOP_SECONDS, Pool, fetch
from twinlog.postgres.log import _QUERIES


class PostgresLease:
    """A lease as a row with an expiry; the database's clock decides."""

    def __init__(self, pool: Pool, name: str, holder: str, *, seconds: float = 5.0) -> None:
        """``holder`` names this replica; ``seconds``: how long it is held without being renewed."""
        self._pool = pool
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._turn = asyncio.Lock()

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs ``work`` whenever this replica holds the lease, for ever; cancels it when the lease is lost."""
        while True:
            if not await self._take():
                await asyncio.sleep(self._seconds / 5)
                continue
            async with asyncio.TaskGroup() as group:
                running = group.create_task(_run(work))
                group.create_task(self._renew_while(running))

    async def _renew_while(self, running: asyncio.Task[None]) -> None:
        try:
            while not running.done():
                await asyncio.wait([running], timeout=self._seconds / 3)
                if not running.done() and not await self._take():
                    structlog.get_logger().info("lease.lost", lease=self._name)
                    running.cancel()
                    return
        except asyncio.CancelledError:
            # Without waiting longer for a server that does not answer: the lease expires by itself.
            with suppress(Unavailable, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await to_its_end(self._ask("give_up_lease"))
            raise

    async def _take(self) -> bool:
        """Whether the lease is held now. While the database is away, nobody else can take it either."""
        try:
            return bool(await to_its_end(self._ask("take_lease", self._seconds)))
        except Unavailable:
            return True

    async def _ask(self, query: str, *arguments: float) -> list[asyncpg.Record]:
        async with self._turn:  # else a renewal under way could take again what is being given up
            return await fetch(self._pool, _QUERIES[query], self._name, self._holder, *arguments)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
