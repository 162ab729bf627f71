"""Ports whose answers a test knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

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
