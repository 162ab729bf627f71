"""What every lease does, in Postgres and in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.neighbors.test_leases import SECONDS, log
from twinlog.log.lease import Answer, ExpiringLease
from twinlog.memory.lease import MemoryLeases
from twinlog.postgres.lease import PostgresLease
from twinlog.testing.conformance import LeaseConformance, LeaseOf
from twinlog.testing.internals import PostgresLog

__all__ = ["log"]


class MemoryLease(ExpiringLease):
    """A lease by the rows in memory."""

    def __init__(self, leases: MemoryLeases, name: str, holder: str) -> None:
        super().__init__(name, holder, seconds=SECONDS)
        self._leases = leases

    async def take_row(self, name: str, holder: str, seconds: float) -> Answer:
        return self._leases.take(name, holder, seconds)

    async def give_up_row(self, name: str, holder: str) -> None:
        self._leases.give_up(name, holder)


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
        return lambda replica: MemoryLease(leases, "work", replica)
