"""Reads, each beside the least program that answers the same: ``python -m proof.bench.reads [--quick]``.

One generator asks both for the same, turn by turn, on the same servers. What is compared is the processor time of the
process that answers: calls for each second of it are what one core can do, whatever else uses the machine.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from google.protobuf.message import Message

from proof.bench import budget, report, servers, watching
from proof.bench.load import Load
from proof.bench.report import Row
from proof.bench.servers import LEAST, Server
from proof.bench.systems import METHOD, create_customers
from shop.orders.v1 import order_service_pb2 as commands
from shop.orders.v1.order_pb2 import ORDER_STATE_PENDING
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from shop.queries.v1 import customer_query_service_pb2 as customers_pb
from shop.queries.v1 import order_query_service_pb2 as orders_pb
from stack.shop import Shop, running
from stack.topology import PROJECTOR, ROOT
from tests.controls import wire
from twinlog.testing.internals import database_url

TITLE = "Reads"
NOTE = (
    "Reads stand beside the least program that gives the same answers, grpc.aio and one statement of asyncpg a call, "
    "on the same views: one generator for both, turn by turn, 64 clients in a closed loop, or one. Calls of one core: "
    "for each second of processor time of the process that answers, whatever else the machine does. "
    "A list has 50 rows, a timeline the events of an orchestrated saga, a token is one that the view has reached. "
    "Each of the orders that are watched changes once."
)
_CLIENTS = 64
_CUSTOMERS = 100
_PAGE = 50
_SETTLED_SECONDS = 120.0
_SINGLE, _LIST = 0.8, 0.6
"""What is wanted of a read of one row and of several, as a ratio."""
_ORDERS = "shop.queries.v1.OrderQueryService"
_CUSTOMER = "shop.queries.v1.CustomerQueryService"


@dataclass(frozen=True)
class Size:
    """How long it takes."""

    rounds: int
    calls: int
    """Of one row, in each round; of several a tenth, and a third of either with one client."""
    orders: int
    """In the views at the least."""
    watched: int
    """Orders."""


FULL = Size(rounds=7, calls=6_000, orders=4_000, watched=8)
QUICK = Size(rounds=3, calls=1_500, orders=600, watched=4)


@dataclass(frozen=True)
class Read:
    """A method, and what it is asked for."""

    name: str
    method: str
    requests: Sequence[Message]
    response: Callable[[bytes], Message]
    least: float
    """The ratio to the least program that is wanted."""

    def messages(self, count: int) -> list[bytes]:
        """So many requests, one after the other and again."""
        texts = [request.SerializeToString() for request in self.requests[:count]]
        return [texts[number % len(texts)] for number in range(count)]


@dataclass
class Table:
    """A row a server, each beside the least program of the same round."""

    what: str
    unit: str
    rows: dict[str, Row] = field(default_factory=dict)

    def add(self, server: Server, value: float) -> None:
        """The value of a round, which begins with the least program."""
        row = self.rows.setdefault(server.name, Row(f"{self.what}: {server.name}", self.unit, LEAST))
        row.add(value, value if server.name == LEAST else self.rows[LEAST].values[-1])


async def rows(shop: Shop, size: Size) -> list[Row]:
    """Every read and the watches, of a shop that runs."""
    async with servers.least(shop) as least:
        both = (least, servers.projector(shop))
        reads, customer_id = await _reads(shop, size)
        found = []
        for read in reads:
            await compare(read, both)
            measured = await _measured(read, both, size, shop.postgres.pid if shop.postgres else 0)
            print(f"{measured[1].what}: {measured[1].ratio:.2f} of the least program", flush=True)
            found += measured
        return found + await watching.rows(shop, both, customer_id, size.watched, size.rounds)


async def compare(read: Read, both: Sequence[Server]) -> None:
    """Raises where they do not give the same answer, but for page tokens."""
    answers = []
    for server in both:
        (call,) = await Load(server.address, read.method).closed(read.messages(1), 1)
        answers.append(read.response(call.reply))
        if "next_page_token" in answers[-1].DESCRIPTOR.fields_by_name:
            answers[-1].ClearField("next_page_token")
    assert answers[0] == answers[1], f"{read.name}: {answers[0]} is not {answers[1]}"


async def _measured(read: Read, both: Sequence[Server], size: Size, postgres: int) -> list[Row]:
    core = Table(read.name, "calls/s of one core")
    alone = Table(f"{read.name}, one client", "calls/s of one core")
    answered = Table(f"{read.name}, answered", "calls/s")
    stored = Table(f"{read.name}, in Postgres", "µs a call")
    count = size.calls if read.least == _SINGLE else size.calls // 10
    for server in both:  # statements get prepared, and what filled the views comes to rest
        await Load(server.address, read.method).closed(read.messages(count // 3), _CLIENTS)
    for _ in range(size.rounds):
        for server in both:
            processes = {"server": server.pid, **({"postgres": postgres} if postgres else {})}
            spent, rate = await _asked(server, read, count, _CLIENTS, processes)
            core.add(server, 1e6 / spent["server"])
            answered.add(server, rate)
            if postgres:
                stored.add(server, spent["postgres"])
            spent, _ = await _asked(server, read, count // 3, 1, processes)
            alone.add(server, 1e6 / spent["server"])
    core.rows[PROJECTOR.name].aim(ratio=read.least)
    return [row for table in (core, alone, answered, stored) for row in table.rows.values()]


async def _asked(
    server: Server, read: Read, count: int, clients: int, processes: dict[str, int]
) -> tuple[dict[str, float], float]:
    """Processor microseconds of a call by process, and the calls answered a second."""
    messages = read.messages(count)
    before = budget.spent(processes)
    calls = await Load(server.address, read.method).closed(messages, clients)
    after = budget.spent(processes)
    # The clock of processes ticks a hundred times a second.
    spent = {name: max(after[name] - before[name], 1e4) / count for name in processes}
    return spent, count / (max(call.answered for call in calls) - calls[0].due)


async def _reads(shop: Shop, size: Size) -> tuple[list[Read], str]:
    """What is asked for, and a customer who orders more."""
    async with _views(shop) as database:
        owners = await _fill(shop, database, size.orders)
        newest = "SELECT order_id FROM orders WHERE saga_mode = $1 ORDER BY created_position DESC LIMIT 2000"
        chosen = [row[0] for row in await database.fetch(newest, SAGA_MODE_CHOREOGRAPHY)]
        orchestrated = [row[0] for row in await database.fetch(newest, SAGA_MODE_ORCHESTRATION)]
        position = await database.fetchval(
            "SELECT position FROM checkpoints WHERE consumer = 'projector.orders'"
        )
    return made(chosen, orchestrated, owners, f"orders:{position}"), owners[0]


def made(chosen: Sequence[str], orchestrated: Sequence[str], owners: Sequence[str], token: str) -> list[Read]:
    """The reads of choreographed and orchestrated orders and of customers; ``token``: one that the view has reached."""
    one, get = orders_pb.GetOrderResponse.FromString, orders_pb.GetOrderRequest
    plain = [get(order_id=id) for id in chosen]
    fresh = [get(order_id=id, consistency_token=token) for id in chosen]
    customers = [customers_pb.GetCustomerRequest(customer_id=id) for id in owners]
    timelines = [orders_pb.GetOrderTimelineRequest(order_id=id) for id in orchestrated]
    customer, entries = customers_pb.GetCustomerResponse, orders_pb.GetOrderTimelineResponse
    page, pages = orders_pb.ListOrdersRequest(page_size=_PAGE), orders_pb.ListOrdersResponse
    return [
        Read("GetOrder", f"{_ORDERS}/GetOrder", plain, one, _SINGLE),
        Read("GetOrder with a token", f"{_ORDERS}/GetOrder", fresh, one, _SINGLE),
        Read("GetCustomer", f"{_CUSTOMER}/GetCustomer", customers, customer.FromString, _SINGLE),
        Read(f"ListOrders of {_PAGE}", f"{_ORDERS}/ListOrders", [page], pages.FromString, _LIST),
        Read("GetOrderTimeline", f"{_ORDERS}/GetOrderTimeline", timelines, entries.FromString, _LIST),
    ]


async def _fill(shop: Shop, database: asyncpg.Connection[Any], orders: int) -> list[str]:
    """Orders in both modes, all of them ended and in the views; gives their customers."""
    owners = await create_customers(shop, _CUSTOMERS)
    modes = (SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION)
    messages = [
        commands.CreateOrderRequest(
            customer_id=owners[number // 2 % _CUSTOMERS], total=wire("12.34"), saga_mode=modes[number % 2]
        ).SerializeToString()
        for number in range(orders)
    ]
    recorded = "SELECT count(*) FROM timeline WHERE log = 'sagas' AND type LIKE '%.SagaCompleted'"
    before = await database.fetchval(recorded)
    await Load(shop.orders, METHOD, refusals=True).closed(messages, _CLIENTS)
    ended = "SELECT count(*) FROM orders WHERE state <> $1 AND customer_id = ANY ($2::text[])"
    async with asyncio.timeout(_SETTLED_SECONDS):
        while await database.fetchval(ended, ORDER_STATE_PENDING, owners) < orders:
            await asyncio.sleep(0.1)
        while await database.fetchval(recorded) < before + orders // 2:
            await asyncio.sleep(0.1)
    return owners


@asynccontextmanager
async def _views(shop: Shop) -> AsyncIterator[asyncpg.Connection[Any]]:
    database = await asyncpg.connect(database_url(shop.postgres_url, PROJECTOR.database))
    try:
        yield database
    finally:
        await database.close()


async def main(size: Size) -> None:
    """Measures on its own shop, and prints the table."""
    async with running(lambda _line: None, data=ROOT / ".data" / "bench-reads", fresh=True) as shop:
        print(report.markdown({TITLE: await rows(shop, size)}, [NOTE, report.machine()]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m proof.bench.reads", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short rounds")
    asyncio.run(main(QUICK if parser.parse_args().quick else FULL))
