"""Cost against size: the rate by orders in the log, by customers, by replicas; every one beside the floor's."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter

import grpc.aio

from bench import measure
from bench.load import Load, Spread
from bench.report import Row
from bench.rounds import FLOOR
from bench.systems import EVENTS_OF_ORDER, METHOD, System, create_customers
from stack.process import free_port, spawn, stop
from stack.shop import Shop
from stack.supervisor import ROOT

NOTE = (
    "Nothing here is extrapolated. Ratios are to the floor in the same round, with about "
    "as many orders in its log and as many customers; the floor has one process of each kind always. The rounds "
    "themselves add orders: customers and replicas were measured between the two sizes of the log. With two replicas, "
    "half of the calls go to each order_svc. A hot customer has half of all orders, the other half is spread over 100. "
    "Memory runs from the smallest log to 100,000 orders. A million orders are only run where they are asked for, and "
    "filling the log ends after a quarter of an hour: the row says how many there were."
)
_SERVICES = {
    "order_svc": "ORDERS_ADDRESS",
    "customer_svc": "CUSTOMERS_ADDRESS",
    "saga_orchestrator": "SAGAS_ADDRESS",
    "projector": "QUERIES_ADDRESS",
}
_FILL_SECONDS = 900.0
_FILL = 50_000
"""Orders between two looks at the clock."""
_CUSTOMERS = (1, 100, 10_000)


@dataclass(frozen=True)
class Sizes:
    """The shop and the floor while they grow."""

    shop: Shop
    systems: list[System]
    orders: int
    """In each measurement."""
    rounds: int

    async def customers(self) -> list[Row]:
        """One, a hundred, ten thousand; one hot among a hundred."""
        rows = []
        for count in _CUSTOMERS:
            owners = await create_customers(self.shop, count)
            rows += await self._measured(f"at {count:,} customer{'s' * (count > 1)}", owners)
        hot, others = owners[0], owners[1:101]
        mixed = list(chain.from_iterable((hot, other) for other in others))
        return rows + await self._measured("at 100 customers", mixed, " and a hot one")

    async def replicas(self) -> list[Row]:
        """One of each service, then two."""
        rows = await self._measured("at 1 replica")
        async with _second_replicas(self.shop) as address:
            floor, *modes = self.systems
            loads = [Load(self.shop.orders, METHOD), Load(address, METHOD)]
            both = [floor, *(replace(mode, load=Spread(*loads)) for mode in modes)]
            return rows + await replace(self, systems=both)._measured("at 2 replicas")

    async def log(self, count: int) -> list[Row]:
        """So many orders in the log before the first round, or as many as there is time for."""
        floor, shop, *_ = self.systems
        count = await _fill(shop, count, _FILL_SECONDS)
        await _fill(floor, count, 2 * _FILL_SECONDS)
        return await self._measured(f"at {count:,} orders")

    async def _measured(self, size: str, owners: Sequence[str] = (), which: str = "") -> list[Row]:
        rows = [Row(f"{system.name}{which} {size}", "sagas/s", FLOOR) for system in self.systems]
        for _ in range(self.rounds):
            for row, system in zip(rows, self.systems, strict=True):
                chosen = replace(system, customers=owners) if owners else system
                sagas = (await measure.rates(chosen, self.orders)).sagas
                row.add(sagas, sagas if row is rows[0] else rows[0].values[-1])
        print(*(f"{row.what}: {row.value:,.0f} sagas/s" for row in rows), sep="\n", flush=True)
        return rows


async def _fill(system: System, count: int, seconds: float) -> int:
    """Adds orders until there are ``count``, or time is up; gives how many of them there are."""
    ends = perf_counter() + seconds
    while (orders := await system.position() // EVENTS_OF_ORDER) < count and perf_counter() < ends:
        await measure.rates(system, min(count - orders, _FILL))
    return min(orders, count)


@asynccontextmanager
async def _second_replicas(shop: Shop) -> AsyncIterator[str]:
    """Another process of every service; gives the address of order_svc's."""
    addresses = {module: f"127.0.0.1:{free_port()}" for module in _SERVICES}
    settings = {setting: addresses[module] for module, setting in _SERVICES.items()}
    env = {**os.environ, **settings, "POSTGRES_URL": shop.postgres_url, "NATS_URL": shop.nats_url}
    env["LOG_LEVEL"] = "error"
    async with AsyncExitStack() as stack:
        for module in _SERVICES:
            process = await spawn(
                [sys.executable, "-m", module], output=sys.stderr.fileno(), env=env, cwd=ROOT
            )
            stack.push_async_callback(stop, process)
        for address in addresses.values():
            async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(60):
                await channel.channel_ready()
        yield addresses["order_svc"]
