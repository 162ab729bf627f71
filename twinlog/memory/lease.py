"""Leases in memory, with the same rule as in Postgres."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from twinlog.log.lease import Answer, LeaseRow


class MemoryLeases:
    """The leases of one store."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """``now``: what time it is at the store."""
        self._now = now
        self.rows: dict[str, LeaseRow] = {}
        """By the name of the work."""

    def take(self, name: str, holder: str, seconds: float) -> Answer:
        """Takes or renews a lease, where that may be."""
        now, row = self._now(), self.rows.get(name)
        if row is None or row.may_be_taken(holder, now, seconds):
            row = self.rows[name] = LeaseRow(holder, now + timedelta(seconds=seconds))
        return Answer(row.holder == holder, row)

    def give_up(self, name: str, holder: str) -> None:
        """Lets another replica have it at once."""
        if (row := self.rows.get(name)) and row.holder == holder:
            del self.rows[name]
