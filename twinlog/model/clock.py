"""Time and identity come through these ports, so that the same code runs under a seeded simulator."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...


class Ids(Protocol):
    """Makes identities."""

    def uuid7(self) -> UUID:
        """A new UUID, version 7: sortable by time."""
        ...
