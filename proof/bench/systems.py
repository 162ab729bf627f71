"""What is measured: the baseline and the shop in either mode, on the same servers, behind the same CreateOrder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import asyncpg
import grpc.aio
import nats
from google.type.money_pb2 import Money
from nats.aio.client import Client
from nats.aio.msg import Msg

from proof.bench import baseline
from proof.bench.load import Load, Spread
from shop.customers.v1 import customer_service_pb2 as customers_pb
from shop.customers.v1.customer_service_pb2_grpc import CustomerServiceStub
from shop.orders.v1 import order_service_pb2 as pb
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION, SagaMode
from stack.shop import Shop, running
from stack.topology import NAMES, ORDER_SVC, ROOT
from twinlog.dev import free_port, spawn, stop
from twinlog.rpc import freshness
from twinlog.testing.internals import RandomIds

CUSTOMERS = 100
EVENTS_OF_ORDER = 2
"""In the log of orders, of the baseline as of the shop: created, and approved."""
METHOD = f"{baseline.SERVICE}/CreateOrder"
_CREDIT = 10**9
_AT_ONCE = 100
_IDS = RandomIds()


class View:
    """How far a view is, and when it got there: from the message that its projector sends after every commit."""

    def __init__(self, consumer: str | None) -> None:
        """``consumer``: whose messages count; None: all."""
        self._consumer = consumer
        self._changed = asyncio.Event()
        self.steps: list[tuple[int, float]] = [(0, 0.0)]
        """Position and perf_counter, ascending."""

    async def on_message(self, message: Msg) -> None:
        """Takes in one of those messages."""
        heard = json.loads(message.data)
        if heard.get("consumer") == self._consumer and heard["position"] > self.steps[-1][0]:
            self.steps.append((heard["position"], perf_counter()))
            self._changed.set()

    async def reached(self, position: int) -> float:
        """Waits until the view is there; gives the perf_counter at which it got there."""
        while self.steps[-1][0] < position:
            self._changed.clear()
            async with asyncio.timeout(120):
                await self._changed.wait()
        return self.times([position])[0]

    def times(self, positions: Sequence[int]) -> list[float]:
        """When the view reached each of these positions."""
        return [self.steps[bisect_left(self.steps, (position, 0.0))][1] for position in positions]


@dataclass(frozen=True)
class System:
    """One of them. Every saga makes two events in its log of orders: created, and approved."""

    name: str
    load: Load | Spread
    view: View
    log: asyncpg.Connection[Any]
    """The database of its log of orders."""
    approvals: str
    """SQL: order id and position of the approvals after position $1."""
    head: str
    """SQL: the last position."""
    mode: SagaMode.ValueType
    customers: Sequence[str]
    pids: Mapping[str, int]
    """Its processes."""
    servers: Mapping[str, int]
    """Postgres and NATS, where they are ours."""

    def requests(self, count: int) -> list[bytes]:
        """CreateOrder messages, customer after customer, each with its own request id."""
        return [
            self.request(self.customers[number % len(self.customers)], str(_IDS.uuid7()))
            for number in range(count)
        ]

    def request(self, customer_id: str, request_id: str = "") -> bytes:
        """A CreateOrder message."""
        return pb.CreateOrderRequest(
            request_id=request_id,
            customer_id=customer_id,
            total=Money(currency_code="EUR", units=1),
            saga_mode=self.mode,
        ).SerializeToString()

    async def position(self) -> int:
        """The last position of its log of orders."""
        return int(await self.log.fetchval(self.head) or 0)

    async def approved(self, after: int) -> dict[str, int]:
        """Position of each approval after a position, by order id."""
        return {row[0]: row[1] for row in await self.log.fetch(self.approvals, after)}


@asynccontextmanager
async def started(
    data: Path, *, kept: bool = False, metrics: str = ""
) -> AsyncIterator[tuple[Shop, list[System]]]:
    """The shop and the baseline, up and empty, in their own folder: baseline, choreography, orchestration.

    ``kept``: with the servers that were prepared in that folder. ``metrics``: where the shop's first service tells its
    metrics, as host:port; the others do on the ports behind it.
    """
    if not kept:
        shutil.rmtree(data, ignore_errors=True)
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(running(lambda _line: None, data=data, metrics=metrics))
        bus = await nats.connect(shop.nats_url, pending_size=2**26)
        stack.push_async_callback(bus.close)
        baseline_view, shop_view = View(None), View("projector.orders")
        await bus.subscribe(baseline.CHANGED, cb=baseline_view.on_message)
        await bus.subscribe(freshness.SUBJECT, cb=shop_view.on_message)
        address, pids = await _start_baseline(stack, shop, bus)
        owners = await create_customers(shop, CUSTOMERS)
        baseline_log = await asyncpg.connect(f"{shop.postgres_url}/baseline")
        shop_log = await asyncpg.connect(f"{shop.postgres_url}/{ORDER_SVC.database}")
        for connection in (baseline_log, shop_log):
            stack.push_async_callback(connection.close)
        embedded = {"postgres": shop.postgres, "nats": shop.nats}
        servers = {name: server.pid for name, server in embedded.items() if server}
        least = System(
            "baseline",
            Load(address, METHOD),
            baseline_view,
            baseline_log,
            f"SELECT order_id, position FROM baseline_orders WHERE type = '{baseline.APPROVED}' AND position > $1",
            "SELECT max(position) FROM baseline_orders",
            SAGA_MODE_CHOREOGRAPHY,
            owners,
            pids,
            servers,
        )
        modes = {"choreography": SAGA_MODE_CHOREOGRAPHY, "orchestration": SAGA_MODE_ORCHESTRATION}
        both = [
            _shop_in(mode, name, shop, shop_view, shop_log, owners, servers) for name, mode in modes.items()
        ]
        yield shop, [least, *both]


def _shop_in(
    mode: SagaMode.ValueType,
    name: str,
    shop: Shop,
    view: View,
    log: asyncpg.Connection[Any],
    owners: Sequence[str],
    servers: Mapping[str, int],
) -> System:
    return System(
        name,
        Load(shop.orders, METHOD, refusals=True),
        view,
        log,
        "SELECT stream_id, position FROM events WHERE type LIKE '%.OrderApproved' AND position > $1",
        "SELECT position FROM log_head",
        mode,
        owners,
        {service: shop.supervisor.pid(service) for service in NAMES},
        servers,
    )


async def _start_baseline(stack: AsyncExitStack, shop: Shop, bus: Client) -> tuple[str, dict[str, int]]:
    server = await asyncpg.connect(f"{shop.postgres_url}/postgres")
    await server.execute("CREATE DATABASE baseline")
    await server.close()
    database = await asyncpg.connect(f"{shop.postgres_url}/baseline")
    await baseline.prepare(database, bus)
    await database.close()
    address, pids = f"127.0.0.1:{free_port()}", {}
    for role in ("orders", "customers", "view"):
        command = [
            sys.executable,
            "-m",
            "proof.bench.baseline",
            role,
            address,
        ]
        env = {**os.environ, "POSTGRES_URL": shop.postgres_url, "NATS_URL": shop.nats_url}
        process = await spawn(command, output=sys.stderr.fileno(), env=env, cwd=ROOT)
        stack.push_async_callback(stop, process)
        pids[f"baseline {role}"] = process.pid
    async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(60):
        await channel.channel_ready()
    return address, pids


async def create_customers(shop: Shop, count: int) -> list[str]:
    """New customers who can pay for anything; gives their ids."""
    limit = Money(currency_code="EUR", units=_CREDIT)
    request = customers_pb.CreateCustomerRequest(name="Bench", credit_limit=limit)
    answers: list[customers_pb.CreateCustomerResponse] = []
    async with grpc.aio.insecure_channel(shop.customers) as channel:
        stub = CustomerServiceStub(channel)
        while len(answers) < count:
            calls = [stub.CreateCustomer(request) for _ in range(min(_AT_ONCE, count - len(answers)))]
            answers += await asyncio.gather(*calls)
    return [answer.customer_id for answer in answers]
