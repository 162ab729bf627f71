"""Leases in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import structlog

from twinlog._aio.retrying import Retrying, backoff
from twinlog._aio.tasks import to_its_end
from twinlog.model.errors import unexpected
from twinlog.postgres.connection import _STOP_SECONDS, Pool, fetch
from twinlog.postgres.named_queries import QUERIES


class PostgresLease:
    """A lease as a row that expires, by the database's clock.

    All replicas, of whatever version, ask for the same length: a row that reaches further is void.
    """

    def __init__(self, pool: Pool, name: str, holder: str, *, seconds: float = 5.0) -> None:
        """``holder`` names this replica; the lease expires after ``seconds`` without renewal."""
        self._pool = pool
        self._name = name
        self._holder = holder
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._retrying = Retrying(say_failing=self._say_unconfirmed, say_working=self._say_confirmed)
        self._waiting = _Waiting(name, seconds)
        self.holder = ""
        """Who has it, as last heard; empty: not known."""

    @property
    def mine(self) -> bool:
        """Whether this replica has it, as last heard."""
        return self.holder == self._holder

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem or self._waiting.problem

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
            with suppress(Exception, asyncio.CancelledError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await to_its_end(self._ask("give_up_lease"))
            raise

    async def _take(self) -> bool:
        """Whether the lease is held now; while the database is away, nobody else can take it either.

        Neither while it refuses, as by a constraint that somebody added; if others can, the work is fenced.
        """
        try:
            rows = await to_its_end(self._ask("take_lease", self._seconds))
        except Exception as error:
            self._retrying.failed(error)
            return True
        self._retrying.succeeded()
        self.holder = str(rows[0]["holder"]) if rows else ""
        if rows and rows[0]["mine"]:
            self._waiting = _Waiting(self._name, self._seconds)
            return True
        self._waiting.seen(rows[0][:2] if rows else ("somebody", None))
        return False

    async def _ask(self, query: str, *arguments: float) -> Sequence[Any]:
        async with self._turn:  # otherwise a renewal in flight could take back a lease being given up
            return await fetch(self._pool, QUERIES[query], self._name, self._holder, *arguments)

    def _say_unconfirmed(self, error: Exception) -> None:
        structlog.get_logger().warning(
            "lease.unconfirmed", lease=self._name, problem=str(error), exc_info=unexpected(error)
        )

    def _say_confirmed(self) -> None:
        structlog.get_logger().info("lease.confirmed", lease=self._name)


class _Waiting:
    """How long somebody else has had the lease. To stand by is normal; a lease that is neither renewed nor expires is
    not, since its work stands still."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._began: float | None = None
        self._row: Sequence[Any] = ()
        self._row_since = 0.0
        self._said = False
        self.problem: str | None = None

    def seen(self, row: Sequence[Any]) -> None:
        """Notes the holder and the end of the lease, as they are stored."""
        now = asyncio.get_running_loop().time()
        if self._began is None:
            self._began = now
        if row != self._row:
            self._row, self._row_since, self.problem = row, now, None
        log, holder = structlog.get_logger(), str(row[0])
        if now - self._began > self._seconds and not self._said:
            self._said = True
            log.info("lease.waiting", lease=self._name, holder=holder)
        if now - self._row_since > self._seconds and not self.problem:
            self.problem = (
                f"lease {self._name}: {holder} has not renewed it for {self._seconds:g} s, and it does not expire; "
                f"free it: DELETE FROM leases WHERE name = '{self._name}'"
            )
            log.warning("lease.not_renewed", lease=self._name, holder=holder, problem=self.problem)


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
