"""The log's adapters, each test with one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests import servers
from twinlog import Log
from twinlog.testing import MemoryLog
from twinlog.testing.internals import PostgresLog, open_log


@pytest.fixture(params=["memory", "postgres"])
def server(request: pytest.FixtureRequest) -> str | None:
    """Where the log is kept; None: in memory."""
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else None


@pytest.fixture
async def log(server: str | None) -> AsyncIterator[Log]:
    if server is None:
        yield MemoryLog("counters")
        return
    async with servers.database(server) as database, open_log(server, database, "counters") as log:
        yield log


@pytest.fixture
async def postgres_log(postgres_url: str, database: str) -> AsyncIterator[PostgresLog]:
    async with open_log(postgres_url, database, "counters") as log:
        yield log
