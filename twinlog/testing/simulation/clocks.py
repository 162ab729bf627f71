"""A clock that is off, and ids from a seed."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from uuid import UUID

from twinlog.testing.fakes import START
from twinlog.testing.simulation.loop import SimulatedLoop


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
