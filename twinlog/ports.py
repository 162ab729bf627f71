"""Time and identity come through these ports, so that the same code runs under a seeded simulator."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from uuid_utils import compat


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


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class RandomIds:
    """Identities from the machine's randomness."""

    def uuid7(self) -> UUID:
        return compat.uuid7()
