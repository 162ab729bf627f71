"""One shop's worth of data for the folder, and the same, clean, for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests import servers
from tests.audit.world import World, world


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def made() -> AsyncIterator[World]:
    """The world, made once."""
    async with world() as one:
        yield one


@pytest_asyncio.fixture(loop_scope="package")
async def shop(made: World) -> AsyncIterator[World]:
    """The world, clean."""
    yield made
    await made.restore()


@pytest_asyncio.fixture(loop_scope="package")
async def own_postgres_url() -> AsyncIterator[str]:
    """A Postgres with nothing on it."""
    async with servers.postgres_server() as server:
        yield server.url
