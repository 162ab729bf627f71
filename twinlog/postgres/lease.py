"""Leases in Postgres."""

from __future__ import annotations

from twinlog.log.lease import SECONDS, Answer, ExpiringLease, LeaseRow
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.named_queries import QUERIES


class PostgresLease(ExpiringLease):
    """A lease as a row that expires, by the database's clock."""

    def __init__(self, pool: Pool, name: str, holder: str, *, seconds: float = SECONDS) -> None:
        """``holder`` names this replica; the lease expires after ``seconds`` without renewal."""
        super().__init__(name, holder, seconds=seconds)
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
