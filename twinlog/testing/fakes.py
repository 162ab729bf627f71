"""Clocks and ids of tests and simulations: their answers are known, or follow from a seed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from twinlog.testing.simulation.loop import SimulatedLoop

START = datetime(2030, 1, 1, tzinfo=UTC)
"""The time at which manual clocks start."""
_UUID7 = 0x7000_8000_0000_0000_0000


class ManualClock:
    """A clock that a test sets."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        """Lets time pass."""
        self._now += by


class CountedIds:
    """Well-formed UUIDs of version 7 in a known order: 1, 2, 3 …"""

    def __init__(self) -> None:
        self._made = 0

    def uuid7(self) -> UUID:
        self._made += 1
        return UUID(int=_UUID7 | self._made)


class SkewedClock:
    """A process's clock: off by ``skew`` seconds."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.skew = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=round(self._loop.time() + self.skew, 6))


class SeededIds:
    """Well-formed UUIDs from a seed."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def uuid7(self) -> UUID:
        drawn = self._chance.getrandbits(128) & ~(0xF000 << 64) & ~(0xC000 << 48)
        return UUID(int=drawn | 0x7000 << 64 | 0x8000 << 48)
