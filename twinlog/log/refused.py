"""Notices a store that is there but refuses every append: callers would only be told of defects."""

from __future__ import annotations

import asyncio

import structlog

_MOST = 5
_SECONDS = 5.0
"""So many refusals in so many seconds, with no commit between them, are the store's fault."""
_REMEMBERED_SECONDS = 30.0
"""A service that is not well may get no calls: by this one it finds out that the store takes them again."""


class RefusedAppends:
    """Counts the refusals since the last commit."""

    def __init__(self, log: str) -> None:
        self._log = log
        self.count = 0
        """Set to 0 by every commit of events."""
        self._first = self._last = 0.0
        self._why = ""

    @property
    def problem(self) -> str | None:
        """That nothing is taken, and why the last one was refused; None while the store takes them, as far as known."""
        if self.count < _MOST or self._last - self._first < _SECONDS:
            return None
        if asyncio.get_running_loop().time() - self._last > _REMEMBERED_SECONDS:
            return None
        return f"log {self._log}: the database has refused the last {self.count} appends, for {self._why}"

    def refused(self, error: Exception) -> None:
        """Notes a unit that failed by itself."""
        now = asyncio.get_running_loop().time()
        if now - self._last > _REMEMBERED_SECONDS:
            self.count = 0
        self._first = self._first if self.count else now
        before = self.problem
        self.count, self._last = self.count + 1, now
        self._why = f"{type(error).__name__}: {error}".partition("\n")[0]  # the rest may show rows
        if not before and self.problem:
            structlog.get_logger().error("writer.refused", log=self._log, problem=self.problem)
