"""The ports of time and identity, through which the same code runs under a seeded simulator."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The current time in UTC, timezone-aware."""


class Ids(Protocol):
    """Makes new identities."""

    def uuid7(self) -> UUID:
        """A new UUID of version 7, which sorts by time."""
