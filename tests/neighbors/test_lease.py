"""What every lease does, in Postgres and in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.neighbors.test_leases import SECONDS, log
from twinlog.memory.lease import MemoryLease, MemoryLeases
from twinlog.postgres.lease import PostgresLease
from twinlog.testing.conformance import LeaseConformance, LeaseOf
from twinlog.testing.internals import PostgresLog

__all__ = ["log"]


class TestPostgresLease(LeaseConformance):
    """The adapter."""

    @pytest.fixture
    def lease(self, log: PostgresLog) -> LeaseOf:
        return lambda replica: PostgresLease(log.pool, "work", replica, seconds=SECONDS)


class TestMemoryLease(LeaseConformance):
    """What the simulator has instead."""

    @pytest.fixture
    def lease(self) -> LeaseOf:
        leases = MemoryLeases(lambda: datetime.now(UTC))
        return lambda replica: MemoryLease(leases, "work", replica, seconds=SECONDS)
