"""Leases in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg
import structlog

from twinlog._aio.retrying import Retrying, backoff
from twinlog._aio.tasks import to_its_end
from twinlog.model.errors import Unavailable
from twinlog.postgres.codecs import Connection as Connection
from twinlog.postgres.connection import _STOP_SECONDS, Pool, fetch
from twinlog.postgres.log import _QUERIES


class PostgresLease:
    """A lease as a row that expires, by the database's clock."""

    def __init__(self, pool: Pool, name: str, holder: str, *, seconds: float = 5.0) -> None:
        """``holder`` names this replica; the lease expires after ``seconds`` without renewal."""
        self._pool = pool
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._retrying = Retrying(say_failing=self._say_unconfirmed, say_working=self._say_confirmed)

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        """Runs ``work`` whenever this replica holds the lease, endlessly; cancels it when the lease is lost."""
        waits = backoff(self._seconds / 5, self._seconds / 5)
        while True:
            if not await self._take():
                await asyncio.sleep(next(waits))
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
            # A server that does not answer is not waited for: the lease expires by itself.
            with suppress(Unavailable, TimeoutError, asyncio.CancelledError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await to_its_end(self._ask("give_up_lease"))
            raise

    async def _take(self) -> bool:
        """Whether the lease is held now; while the database is away, nobody else can take it either."""
        try:
            taken = bool(await to_its_end(self._ask("take_lease", self._seconds)))
        except Unavailable as error:
            self._retrying.failed(error)
            return True
        self._retrying.succeeded()
        return taken

    async def _ask(self, query: str, *arguments: float) -> list[asyncpg.Record]:
        async with self._turn:  # otherwise a renewal in flight could take back a lease being given up
            return await fetch(self._pool, _QUERIES[query], self._name, self._holder, *arguments)

    def _say_unconfirmed(self, error: Exception) -> None:
        structlog.get_logger().warning("lease.unconfirmed", lease=self._name, problem=str(error))

    def _say_confirmed(self) -> None:
        structlog.get_logger().info("lease.confirmed", lease=self._name)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
