"""One running shop for all tests of this folder, on servers of its own or on those that the environment names."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from stack.shop import Shop, running
from stack.topology import ROOT
from tests.e2e.client import Client, connect
from tests.servers import folder
from twinlog.dev import Program, Supervisor, free_port


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def spoken() -> AsyncIterator[list[str]]:
    """What the services and their supervisor say, line by line."""
    yield []


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shop(spoken: list[str]) -> AsyncIterator[Shop]:
    """The four services, supervised."""
    with folder() as path:
        async with running(spoken.append, data=path) as started:
            yield started


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def client(shop: Shop) -> AsyncIterator[Client]:
    """A client of the shop."""
    async with connect(shop) as connected:
        yield connected


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def replica(shop: Shop, spoken: list[str]) -> AsyncIterator[str]:
    """The address of a second order_svc over the same log, whose orders wait one second for their credit."""
    address = f"127.0.0.1:{free_port()}"
    env = {
        "POSTGRES_URL": shop.postgres_url,
        "NATS_URL": shop.nats_url,
        "ORDER_DEADLINE_SECONDS": "1",
    }
    service = Program("order_svc", "ORDERS_ADDRESS", address)
    with folder() as path:
        async with Supervisor([service], env, spoken.append, root=ROOT, folder=path):
            yield address
