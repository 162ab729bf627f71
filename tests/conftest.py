"""The servers that all tests share, and what each test gets of its own on them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests import servers
from twinlog.dev import EmbeddedNats, EmbeddedPostgres
from twinlog.jetstream import connection as jetstream
from twinlog.testing.internals import NatsClient


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_url() -> AsyncIterator[str]:
    """A Postgres for the whole session; POSTGRES_URL or an embedded one."""
    if url := os.environ.get("POSTGRES_URL"):
        yield url
        return
    async with servers.postgres_server() as server:
        yield server.url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_url() -> AsyncIterator[str]:
    """A NATS for the whole session; NATS_URL or an embedded one."""
    if url := os.environ.get("NATS_URL"):
        yield url
        return
    async with servers.nats_server() as server:
        yield server.url


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[str]:
    """The name of an empty database of the test's own."""
    async with servers.database(postgres_url) as name:
        yield name


@pytest.fixture
async def nats(nats_url: str) -> AsyncIterator[NatsClient]:
    """A connection of the test's own."""
    client = await jetstream.connect(nats_url, "tests")
    yield client
    await jetstream.close(client)


@pytest.fixture
async def stream(nats: NatsClient) -> AsyncIterator[str]:
    """The name of a stream of the test's own, which is not there yet."""
    async with servers.stream(nats) as name:
        yield name


@pytest.fixture
async def own_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that only this test uses, to stop, kill and start again."""
    async with servers.postgres_server() as server:
        yield server


@pytest.fixture
async def own_nats() -> AsyncIterator[EmbeddedNats]:
    """A NATS that only this test uses, to stop, kill and start again."""
    async with servers.nats_server() as server:
        yield server
