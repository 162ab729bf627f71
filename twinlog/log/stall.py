"""Notices a store that is ill: it takes too long for an append, or refuses one after the other."""

from __future__ import annotations

import asyncio

import structlog

from twinlog.log.ports import Log
from twinlog.model.errors import named

_STALLED_SECONDS = 2.0
"""An append that takes longer is a problem; who holds it up is asked as often."""

_MOST_REFUSED = 5
_REFUSED_SECONDS = 5.0
"""So many refusals in so many seconds, with no commit between them, are the store's fault."""
_REMEMBERED_SECONDS = 30.0
"""A service that is not well may get no calls: by this one it finds out that the store takes them again."""


class Stall:
    """Watches one append at a time; costs a timer while nothing is wrong."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._began = 0.0
        self._said = 0.0
        """After how many seconds it was said last; it is again after twice as many."""
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._blockers = ""

    @property
    def problem(self) -> str | None:
        """What is known of an append that takes too long, or None."""
        if self._asking is None:
            return None
        seconds = asyncio.get_running_loop().time() - self._began
        waiting = f"log {self._log.name}: the oldest append has been waiting for {seconds:.0f} s"
        return f"{waiting}; it is held up by {self._blockers}" if self._blockers else waiting

    @property
    def seconds(self) -> float:
        """For how long an append has been under way; 0 where none is."""
        under_way = self._timer is not None
        return asyncio.get_running_loop().time() - self._began if under_way else 0.0

    def began(self) -> None:
        """Notes the begin of an append."""
        loop = asyncio.get_running_loop()
        self._began, self._said = loop.time(), 0.0
        self._timer = loop.call_later(_STALLED_SECONDS, self._stalled)

    def ended(self) -> None:
        """Notes its end."""
        if self._timer:
            self._timer.cancel()
        if self._asking:
            self._asking.cancel()
            seconds = asyncio.get_running_loop().time() - self._began
            structlog.get_logger().info("writer.goes_on", log=self._log.name, seconds=round(seconds, 1))
        self._timer = self._asking = None
        self._blockers = ""

    def _stalled(self) -> None:
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        log = structlog.get_logger()
        try:
            self._blockers = ", ".join(await self._log.blockers())
        except Exception as error:  # the store may be what stalls
            log.debug("writer.blind", log=self._log.name, why=str(error))
        if self.seconds >= 2 * self._said:
            self._said = self.seconds
            log.warning("writer.stalled", log=self._log.name, held_up_by=self._blockers or "nobody known")
        await asyncio.sleep(_STALLED_SECONDS)
        self._stalled()


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
        if self.count < _MOST_REFUSED or self._last - self._first < _REFUSED_SECONDS:
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
        self._why = named(error).partition("\n")[0]  # the rest may show rows
        if not before and self.problem:
            structlog.get_logger().error("writer.refused", log=self._log, problem=self.problem)
