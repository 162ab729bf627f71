"""One running shop with metrics, after orders of all kinds."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping

import grpc.aio
import pytest
import pytest_asyncio

from shop.orders.v1 import order_service_pb2 as order_pb
from stack.shop import Shop
from tests.controls import MODES
from tests.e2e.client import Client, connect
from tests.observe.scraping import Scrape, scraped
from tests.servers import folder
from tests.shops import running_shop
from tests.waiting import until
from twinlog.dev import Console

# Debian's package prometheus has it; .ci/run sees to that.
collect_ignore = [] if shutil.which("promtool") else ["test_promtool.py"]


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def shop() -> AsyncIterator[Shop]:
    """Four services with metrics, quiet, and used: orders in both modes, one refused, one in vain; and the console."""
    with folder() as path:
        own_console = Console(address=None)
        async with running_shop(path, quiet=True, metrics="127.0.0.1:0", console=own_console) as started:
            async with connect(started) as client:
                await use(client)
            await scraped(f"{started.console}/sagas")
            yield started


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def client(shop: Shop) -> AsyncIterator[Client]:
    async with connect(shop) as connected:
        yield connected


async def use(client: Client) -> None:
    """Orders of each kind, until their sagas have ended, and a call that is refused."""
    customer_id = await client.customer("10")
    for mode in MODES:
        for total in ("1", "100"):  # the second one is beyond the limit
            await client.order(customer_id, total, mode)
    with pytest.raises(grpc.aio.AioRpcError):
        await client.orders.CreateOrder(order_pb.CreateOrderRequest(order_id="no id"))


async def scrape(shop: Shop, service: str) -> Scrape:
    """What a service tells, once it can find out all of it in time."""
    found: list[Scrape] = []

    async def whole() -> bool:
        found.append(Scrape(await scraped(f"http://{shop.metrics[service]}/metrics")))
        return found[-1].value("twinlog_up") == 1 and not found[-1].sum("twinlog_scrape_failures")

    await until(whole)
    return found[-1]


async def scrape_all(shop: Shop) -> Mapping[str, Scrape]:
    """What each service tells, as soon as all is done."""
    told: dict[str, Scrape] = {}

    async def done() -> bool:
        texts = await asyncio.gather(*(scrape(shop, service) for service in shop.metrics))
        told.update(zip(shop.metrics, texts, strict=True))
        return all(
            not value
            for each in told.values()
            for (name, _), value in each.samples.items()
            if name in ("twinlog_consumer_lag_events", "twinlog_relay_lag_events", "twinlog_sagas")
        )

    await until(done)
    return told
