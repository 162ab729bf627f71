"""Notices who holds what an append takes, while nobody appends. Whoever appends waits, and says so itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

_LOOK_SECONDS = 1.0
_HELD_SECONDS = 2.0
"""A transaction that holds it for longer is a problem, as an append is that takes longer."""


class Held:
    """Looks at the locks of a log once a second."""

    def __init__(
        self, log: str, ask: Callable[[], Awaitable[Mapping[str, str]]], appends: Callable[[], bool]
    ) -> None:
        """``ask``: who holds it, by transaction, in words. ``appends``: whether an append is under way here."""
        self._log = log
        self._ask = ask
        self._appends = appends
        self._since: dict[str, float] = {}
        """When each transaction was seen first."""
        self.problem: str | None = None
        """Who holds it, or None."""

    async def run(self) -> None:
        """Looks, endlessly."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                self._look(await self._ask())
            except Exception as error:  # what ails the store is told by those who use it
                structlog.get_logger().debug("writer.blind", log=self._log, why=str(error))
                self._look({})

    def _look(self, holders: Mapping[str, str]) -> None:
        now = asyncio.get_running_loop().time()
        self._since = {transaction: self._since.get(transaction, now) for transaction in holders}
        long = [told for held, told in holders.items() if now - self._since[held] >= _HELD_SECONDS]
        before, who = self.problem, ", ".join(sorted(long))
        self.problem = (
            f"log {self._log}: the next append would wait; it is held up by {who}" if long else None
        )
        if self._appends() or bool(before) is bool(long):
            return
        log = structlog.get_logger()
        if long:
            log.warning("writer.stalled", log=self._log, held_up_by=who)
        else:
            log.info("writer.goes_on", log=self._log)
