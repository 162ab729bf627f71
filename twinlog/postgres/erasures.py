"""Who is erased, noted beside a log in Postgres (:mod:`twinlog.log.erasures`)."""

from __future__ import annotations

from collections.abc import Collection

from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.named_queries import QUERIES


class PostgresErasures:
    """The table of one log."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note(self, subjects: Collection[str]) -> None:
        await fetch(self._pool, QUERIES["note_erased"], [*subjects])

    async def noted(self) -> Collection[str]:
        return [row[0] for row in await fetch(self._pool, QUERIES["erased"])]
