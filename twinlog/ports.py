"""Time and identity come through these ports, so that the same code runs under a seeded simulator."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import uuid_utils
from asyncpg.pgproto import pgproto


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
        # The same class as the ids that come from the log: a uuid.UUID, made in a third of the time.
        return pgproto.UUID(uuid_utils.uuid7().bytes)
