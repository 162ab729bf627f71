"""What every lease does, in Postgres."""

from __future__ import annotations

import pytest

from tests.neighbors.test_leases import SECONDS, log
from twinlog.postgres.lease import PostgresLease
from twinlog.testing.conformance import LeaseConformance, LeaseOf
from twinlog.testing.internals import PostgresLog

__all__ = ["log"]


class TestPostgresLease(LeaseConformance):
    """The adapter."""

    @pytest.fixture
    def lease(self, log: PostgresLog) -> LeaseOf:
        return lambda replica: PostgresLease(log.pool, "work", replica, seconds=SECONDS)
