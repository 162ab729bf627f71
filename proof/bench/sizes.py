"""Cost against size: the rate by orders in the log, by customers, by replicas; every one beside the baseline's."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter

from proof.bench import measure
from proof.bench.load import Load, Spread
from proof.bench.report import Row
from proof.bench.rounds import BesideBaseline
from proof.bench.systems import EVENTS_OF_ORDER, METHOD, System, create_customers
from stack.shop import Shop
from stack.topology import ORDER_SVC, ROOT, SERVICES
from twinlog import ServiceSpec
from twinlog.dev import free_port, spawn, stop, until_serving

NOTE = (
    "Nothing here is extrapolated. Ratios are to the baseline in the same round, with about as many orders in its log "
    "and as many customers; the baseline always has one process of each kind. The rounds themselves add orders: "
    "customers and replicas were measured after the larger log, with half as many orders again in it. With two of "
    "order_svc, half of the calls go to each. A hot customer has half of all orders, 100 others have the rest. "
    "Memory is taken first when half of the larger log is there, half of that in each mode, so that the caches of "
    "every service, 20,000 states each, are full; then as many sagas later as the rows say, again half in each mode. "
    "A million orders are only run where they are asked for, and "
    "filling the log ends after a quarter of an hour: the row says how many there were."
)
_FILL_SECONDS = 900.0
_FILL = 25_000
"""Orders of one system between two looks at the clock."""
_CUSTOMERS = (1, 100, 10_000)


@dataclass(frozen=True)
class Sizes:
    """The shop and the baseline while they grow."""

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
            rows += await self._measured(f"{{}} at {count:,} customer{'s' * (count > 1)}", owners)
        hot, others = owners[0], owners[1:101]
        mixed = list(chain.from_iterable((hot, other) for other in others))
        return rows + await self._measured("{}, 100 customers and a hot one", mixed)

    async def replicas(self) -> list[Row]:
        """One of each service, then two of each in its turn, then two of all."""
        rows = await self._measured("{}, one of each service")
        for service in SERVICES:
            rows += await self._doubled([service], f"{{}}, two of {service.name}")
        return rows + await self._doubled(SERVICES, "{}, two of each service")

    async def log(self, count: int) -> list[Row]:
        """So many orders in the log before the first round, or as many as there is time for."""
        return await self._measured(f"{{}} at {await self.fill(count):,} orders")

    async def fill(self, count: int) -> int:
        """Fills the logs, the shop's half in each mode; gives how many orders they have of those wanted."""
        baseline, *modes = self.systems
        count = await _fill(modes, count, _FILL_SECONDS)
        await _fill([baseline], count, 2 * _FILL_SECONDS)
        return count

    async def _doubled(self, services: Sequence[ServiceSpec], what: str) -> list[Row]:
        baseline, *modes = self.systems
        async with _second(self.shop, services) as addresses:
            second = addresses.get(ORDER_SVC.name)
            loads = [
                Load(address, METHOD, refusals=True) for address in (self.shop.orders, second) if address
            ]
            both = [baseline, *(replace(mode, load=Spread(*loads)) for mode in modes)]
            return await replace(self, systems=both)._measured(what)

    async def _measured(self, what: str, owners: Sequence[str] = ()) -> list[Row]:
        sagas = BesideBaseline(self.systems, what, "sagas/s")
        for _ in range(self.rounds):
            for system in self.systems:
                chosen = replace(system, customers=owners) if owners else system
                sagas.add(system, (await measure.rates(chosen, self.orders)).sagas)
        print(*(f"{row.what}: {row.value:,.0f} sagas/s" for row in sagas.rows), sep="\n", flush=True)
        return sagas.rows


async def _fill(systems: Sequence[System], count: int, seconds: float) -> int:
    """Adds orders to a log, each system the same share, until there are ``count`` or time is up."""
    ends = perf_counter() + seconds
    while (orders := await systems[0].position() // EVENTS_OF_ORDER) < count and perf_counter() < ends:
        for system in systems:
            await measure.rates(system, min(-(-(count - orders) // len(systems)), _FILL))
    return min(orders, count)


@asynccontextmanager
async def _second(shop: Shop, services: Sequence[ServiceSpec]) -> AsyncIterator[Mapping[str, str]]:
    """Another process of each of these services; yields their addresses by name."""
    addresses = {service.name: f"127.0.0.1:{free_port()}" for service in services}
    settings = {service.address_setting: addresses[service.name] for service in services}
    env = {**os.environ, **settings, "POSTGRES_URL": shop.postgres_url, "NATS_URL": shop.nats_url}
    env["LOG_LEVEL"] = "error"
    async with AsyncExitStack() as stack:
        for name in addresses:
            process = await spawn([sys.executable, "-m", name], output=sys.stderr.fileno(), env=env, cwd=ROOT)
            stack.push_async_callback(stop, process)
        for address in addresses.values():
            async with asyncio.timeout(60):
                await until_serving(address)
        yield addresses
