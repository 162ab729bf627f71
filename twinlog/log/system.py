"""The clocks and the random ids of a process."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

import structlog
import uuid_utils

from twinlog._aio.retrying import Randomness, Retrying, backoff
from twinlog.model.clock import Clock
from twinlog.model.errors import unexpected
from twinlog.model.ids import uuid_of

MEASURE_EVERY_SECONDS = 10.0
"""Until a clock that is set is noticed, replicas may differ on deadlines that are set meanwhile."""
_SOON_SECONDS, _SELDOM_SECONDS = 1.0, 60.0
"""How long until it is measured again where the round trips were too long; each pause then is twice the last."""
_READINGS = 3
"""In each measurement."""
_TOLERATED_ROUND_TRIP_SECONDS = 0.2
"""Where all were longer, a busy machine is likelier than a long way."""
_DRIFT = 0.0005
"""By how many seconds two clocks part in one, at the most: as fast as NTP slews a clock."""
_TOLERATED_SECONDS = 1.0


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


seconds_passed = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Seconds since some moment, whatever is done to the machine's clock; sleep counts where the system tells."""


class _Reading(NamedTuple):
    """What the store's clock said."""

    told: datetime
    at: float
    """In the middle of the round trip."""
    round_trip: float
    """Seconds."""

    def now(self, passed: float) -> datetime:
        """What it says by now."""
        return self.told + timedelta(seconds=passed - self.at)

    def uncertain(self, passed: float) -> float:
        """By how many seconds that is off at the most, unless the clock was set."""
        return self.round_trip / 2 + _DRIFT * abs(passed - self.at)

    def refuted(self, by: _Reading) -> bool:
        """Whether both cannot be right: the clock was set in between, or it is another server's."""
        apart = abs((by.told - self.now(by.at)).total_seconds())
        return apart > self.uncertain(by.at) + by.uncertain(by.at)


class StoreClock:
    """The store's clock, as far as a process can know it: what it said last, and how much time has passed since.

    Deadlines are set and noticed by the clock of the database that keeps them, so replicas on machines whose clocks
    differ agree on them. A machine that is off by more than a second is reported, and does no harm.

    An answer is right within half of its round trip. The best one counts until one is better, or shows that the clock
    was set.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[datetime]],
        machine: Clock,
        *,
        passed: Callable[[], float] = seconds_passed,
        randomness: Randomness = random,
    ) -> None:
        """``ask`` asks the store for its time. ``machine``: what is compared with it, and what counts until
        :meth:`measure` has succeeded. ``passed``: seconds since some moment."""
        self._ask = ask
        self._machine = machine
        self._passed = passed
        self._reading: _Reading | None = None
        self._randomness = randomness
        self._slow = False
        self._retrying = Retrying(
            say_failing=self._say_failing,
            say_working=lambda: None,
            on=(Exception,),  # what was measured before goes on counting
            first_seconds=1.0,
            randomness=randomness,
        )
        self.ahead_seconds = 0.0
        """By how much the machine's clock was ahead of the store's when it was asked last; negative: behind."""
        self.problem: str | None = None
        """By how much the machine's clock is off, where that is more than a second; None while it is right."""

    def now(self) -> datetime:
        return self._machine.now() if self._reading is None else self._reading.now(self._passed())

    async def measure(self) -> None:
        """Asks the store. Raises Unavailable; what was known before then stays."""
        readings = [await self._read() for _ in range(_READINGS)]
        self._slow = min(one.round_trip for one in readings) > _TOLERATED_ROUND_TRIP_SECONDS
        best = self._reading or readings[0]
        for one in readings:
            if best.refuted(one) or one.uncertain(one.at) <= best.uncertain(one.at):
                best = one
        self._reading = best
        self._compare(best)

    async def run(self) -> None:
        """Measures again and again, endlessly, and sooner after round trips that were too long."""
        soon = backoff(_SOON_SECONDS, _SELDOM_SECONDS, self._randomness)
        while True:
            await asyncio.sleep(next(soon) if self._slow else MEASURE_EVERY_SECONDS)
            await self._retrying(self.measure)
            if not self._slow:
                soon = backoff(_SOON_SECONDS, _SELDOM_SECONDS, self._randomness)

    def _say_failing(self, error: Exception) -> None:
        if unexpected(error):  # an outage shows elsewhere
            structlog.get_logger().warning("clock.not_measured", exc_info=error)

    async def _read(self) -> _Reading:
        began = self._passed()
        told = await self._ask()
        round_trip = self._passed() - began
        return _Reading(told, began + round_trip / 2, round_trip)

    def _compare(self, reading: _Reading) -> None:
        """Compares the machine's clock with the store's; what may be chance is not told."""
        began = self._passed()
        machine = self._machine.now()
        ended = self._passed()
        self.ahead_seconds = ahead = (machine - reading.now(began)).total_seconds()
        error = reading.uncertain(ended) + ended - began
        if abs(ahead) - error > _TOLERATED_SECONDS:
            if self.problem is None:
                structlog.get_logger().warning("clock.off", seconds=round(ahead, 1))
            self.problem = (
                f"this machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the database's, "
                "which decides; have one of them set (NTP)"
            )
        elif abs(ahead) + error <= _TOLERATED_SECONDS and self.problem is not None:
            structlog.get_logger().info("clock.right")
            self.problem = None


class RandomIds:
    """UUIDs from the machine's randomness."""

    def uuid7(self) -> UUID:
        return uuid_of(uuid_utils.uuid7().bytes)
