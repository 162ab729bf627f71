"""Leases in Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from twinlog.log.lease import SECONDS, Answer, ExpiringLease, LeaseRow
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.named_queries import QUERIES


class PostgresLeases:
    """The leases of a process. They ask over half of the connections: while their table is locked, commands have the
    others; and where only a row of it is, that holds up no other lease."""

    def __init__(self, pool: Pool, holder: Callable[[], str]) -> None:
        """``holder`` gives the name under which this replica holds one of them."""
        self._pool = pool
        self._holder = holder
        self._asking = asyncio.Semaphore(max(1, pool.get_max_size() // 2))

    def __call__(self, name: str) -> PostgresLease:
        return PostgresLease(self._pool, name, self._holder(), asking=self._asking)


class PostgresLease(ExpiringLease):
    """A lease as a row that expires, by the database's clock."""

    def __init__(
        self,
        pool: Pool,
        name: str,
        holder: str,
        *,
        seconds: float = SECONDS,
        asking: AbstractAsyncContextManager[object] | None = None,
    ) -> None:
        """``holder`` names this replica; the lease expires after ``seconds`` without renewal. ``asking``: goes around
        each question to the database; leases may share it."""
        super().__init__(name, holder, seconds=seconds, asking=asking)
        self._pool = pool

    async def take_row(self, name: str, holder: str, seconds: float) -> Answer:
        """By the statement, which says the same as :meth:`LeaseRow.may_be_taken`."""
        rows = await fetch(self._pool, QUERIES["take_lease"], name, holder, seconds)
        if not rows:
            return Answer(False, None)
        return Answer(rows[0]["mine"], LeaseRow(rows[0]["holder"], rows[0]["expires_at"]))

    async def give_up_row(self, name: str, holder: str) -> None:
        """Deletes the row, if it is of that holder."""
        await fetch(self._pool, QUERIES["give_up_lease"], name, holder)
