"""One running shop for all tests of this folder, on servers of its own or on those that the environment names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from stack.shop import Shop
from tests.e2e.client import Client, connect, hurried
from tests.servers import folder
from tests.shops import running_shop


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def spoken() -> AsyncIterator[list[str]]:
    """What the services and their supervisor say, line by line."""
    yield []


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shop(spoken: list[str]) -> AsyncIterator[Shop]:
    """The four services, supervised."""
    with folder() as path:
        async with running_shop(path, spoken.append) as started:
            yield started


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def client(shop: Shop) -> AsyncIterator[Client]:
    """A client of the shop."""
    async with connect(shop) as connected:
        yield connected


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def replica(shop: Shop, spoken: list[str]) -> AsyncIterator[str]:
    """The address of a second order_svc over the same log, whose orders wait one second for their credit."""
    async with hurried(shop, spoken.append) as address:
        yield address
