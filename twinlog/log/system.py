"""The clock and the random ids of this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import uuid_utils

from twinlog.model.ids import uuid_of


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class RandomIds:
    """UUIDs from the machine's randomness."""

    def uuid7(self) -> UUID:
        return uuid_of(uuid_utils.uuid7().bytes)
