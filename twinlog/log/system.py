"""The clocks and the random ids of a process."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
import uuid_utils

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.model.clock import Clock
from twinlog.model.errors import unexpected
from twinlog.model.ids import uuid_of

MEASURE_EVERY_SECONDS = 60.0
_READINGS = 3
"""Of these, the one with the shortest round trip counts."""
_LONGEST_ROUND_TRIP_SECONDS = 1.0
"""A slower reading does not replace an earlier one."""
_TOLERATED_SECONDS = 1.0


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


def seconds_passed() -> float:
    """Seconds since some moment, whatever is done to the machine's clock; sleep counts where the system tells."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Reading(NamedTuple):
    """What the store's clock said."""

    told: datetime
    at: float
    """In the middle of the round trip."""
    round_trip: float
    """Seconds."""
    ahead: float
    """By how many seconds the machine's clock was ahead."""


class StoreClock:
    """The store's clock, as far as a process can know it: what it said last, and how much time has passed since.

    Deadlines are set and noticed by the clock of the database that keeps them, so replicas on machines whose clocks
    differ agree on them. A machine that is off by more than a second is reported, and does no harm.
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
        self._retrying = Retrying(
            say_failing=self._say_failing,
            say_working=lambda: None,
            on=(Exception,),  # what was measured before goes on counting
            first_seconds=1.0,
            randomness=randomness,
        )
        self.problem: str | None = None
        """By how much the machine's clock is off, where that is more than a second; None while it is right."""

    def now(self) -> datetime:
        if self._reading is None:
            return self._machine.now()
        return self._reading.told + timedelta(seconds=self._passed() - self._reading.at)

    @property
    def ahead_seconds(self) -> float:
        """By how much the machine's clock was ahead of the store's when it was asked last; negative: behind."""
        return self._reading.ahead if self._reading else 0.0

    async def measure(self) -> None:
        """Asks the store. Raises Unavailable; what was known before then stays."""
        reading = min([await self._read() for _ in range(_READINGS)], key=lambda one: one.round_trip)
        if self._reading is None or reading.round_trip <= _LONGEST_ROUND_TRIP_SECONDS:
            self._reading = reading
            self._judge(reading)

    async def run(self) -> None:
        """Measures once a minute, endlessly."""
        while True:
            await asyncio.sleep(MEASURE_EVERY_SECONDS)
            await self._retrying(self.measure)

    def _say_failing(self, error: Exception) -> None:
        if unexpected(error):  # an outage shows elsewhere
            structlog.get_logger().warning("clock.not_measured", exc_info=error)

    async def _read(self) -> _Reading:
        machine, began = self._machine.now(), self._passed()
        told = await self._ask()
        half = (self._passed() - began) / 2
        return _Reading(told, began + half, 2 * half, (machine - told).total_seconds() + half)

    def _judge(self, reading: _Reading) -> None:
        off = abs(reading.ahead) - reading.round_trip / 2 > _TOLERATED_SECONDS
        if off and self.problem is None:
            structlog.get_logger().warning("clock.off", seconds=round(reading.ahead, 1))
        elif not off and self.problem is not None:
            structlog.get_logger().info("clock.right")
        direction = "ahead of" if reading.ahead > 0 else "behind"
        self.problem = (
            f"this machine's clock is {abs(reading.ahead):.1f} s {direction} the database's, which decides; "
            "have one of them set (NTP)"
            if off
            else None
        )


class RandomIds:
    """UUIDs from the machine's randomness."""

    def uuid7(self) -> UUID:
        return uuid_of(uuid_utils.uuid7().bytes)
