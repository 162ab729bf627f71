"""What a read costs in calls and in statements: the projector's queries behind the edge, on a real database.

``python -m tests.bench.reading`` records today's counts as the budget.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import asyncpg
import grpc

from projector.app import PACKAGE, VIEWS
from projector.queries import CustomerQueries, OrderQueries
from projector.reads import ROWS, Views
from projector.views.orders import ORDERS
from shop.queries.v1 import customer_query_service_pb2 as customers
from shop.queries.v1 import order_query_service_pb2 as orders
from tests.bench.counting import Counts, counted, of_services
from tests.controls import new_id
from tests.memory_shop import NoContext
from tests.servers import execute, postgres_server
from twinlog import Personal, Schema
from twinlog.memory.keys import MemoryKeys
from twinlog.rpc import PageTokens, Past, ReadModel
from twinlog.rpc.handlers import Boundary
from twinlog.service.identity import needs_identity
from twinlog.testing.internals import open_log

BUDGET = Path(__file__).with_name("reads.json")
_TOGETHER = 100
_WARM_UP = 10
_PAGE = 50
TRIES = 3
_ROWS = """
INSERT INTO customers VALUES ('{customer}', 'Ada', 'EUR', 1000, 0, 1, now(), now());
INSERT INTO orders SELECT CASE number WHEN 1 THEN '{order}' ELSE gen_random_uuid()::text END, '{customer}', 1000, 'EUR',
    2, 0, 1, number, now(), now(), 2 FROM generate_series(1, 60) AS numbers (number);
INSERT INTO timeline VALUES ('orders', 1, '{order}', '{order}', 'unknown', '', now(), '', '', '');
"""


class _Alone:
    """A service that neither projects nor looks how far others are."""

    name = "projector"
    schema = Schema()
    messages: Any = None

    def __init__(self) -> None:
        self.read_models: list[Collection[str]] = []

    def subscribe(self, *subscribers: Any, linger_seconds: float = 0.0) -> None:
        """Feeds no view."""

    def start(self, _name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs no task."""
        work.close()


@dataclass(frozen=True)
class Read:
    """A method as the server calls it, and what it is asked."""

    call: Any
    request: bytes

    async def answer(self) -> None:
        assert await self.call(self.request, NoContext())


@asynccontextmanager
async def reads(postgres_url: str, database: str) -> AsyncIterator[Mapping[str, Read]]:
    """The reads by name, of views with 60 orders in a new database."""
    async with open_log(postgres_url, database, "projector", PACKAGE) as log:
        order, customer = new_id(), new_id()
        await execute(postgres_url, _ROWS.format(order=order, customer=customer), database)
        views = Views(log, PACKAGE, ROWS)
        views.live.seen_at = math.inf  # a look every few seconds would count where a machine is slow
        model = ReadModel(_Alone(), views, VIEWS, watched=[ORDERS])
        model.freshness.advanced("projector.orders", 17)
        shared = (views, model, PageTokens(b"secret"), cast(Past, None), Personal(MemoryKeys()))
        ours, theirs = OrderQueries(*shared), CustomerQueries(*shared)
        yield {
            "GetOrder": _read(ours.GetOrder, orders.GetOrderRequest(order_id=order)),
            "GetOrder with a token": _read(
                ours.GetOrder, orders.GetOrderRequest(order_id=order, consistency_token="orders:17")
            ),
            "GetCustomer": _read(theirs.GetCustomer, customers.GetCustomerRequest(customer_id=customer)),
            f"ListOrders of {_PAGE}": _read(ours.ListOrders, orders.ListOrdersRequest(page_size=_PAGE)),
            "GetOrderTimeline": _read(ours.GetOrderTimeline, orders.GetOrderTimelineRequest(order_id=order)),
        }


def _read(behavior: Any, request: Any) -> Read:
    handler = grpc.unary_unary_rpc_method_handler(behavior, type(request).FromString)
    gate = Boundary("shop", [needs_identity]).wrap("shop.queries.v1.Queries/Read", handler)
    return Read(gate.handler.unary_unary, request.SerializeToString())


async def count(read: Read) -> Counts:
    """Calls of the project's own functions and statements a read, one after the other and many together."""
    for _ in range(_WARM_UP):
        await read.answer()
    with counted() as alone, _statements() as sent:
        for _ in range(_TOGETHER):
            await read.answer()
    one = sum(sent)
    with counted() as together, _statements() as shared:
        await asyncio.gather(*(read.answer() for _ in range(_TOGETHER)))
    return {
        "calls, one after the other": round(of_services(alone) / _TOGETHER, 1),
        f"calls, {_TOGETHER} together": round(of_services(together) / _TOGETHER, 1),
        f"statements of {_TOGETHER}, one after the other": one,
        f"statements of {_TOGETHER} together": sum(shared),
    }


@contextmanager
def _statements() -> Iterator[list[int]]:
    """A one for each statement that rows are fetched with."""
    sent: list[int] = []
    fetch = asyncpg.Connection.fetch

    async def noted(self: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(1)
        return await fetch(self, *arguments, **options)

    with patch.object(asyncpg.Connection, "fetch", noted):
        yield sent


def least(*tries: Counts) -> Counts:
    """What was counted least in some tries: a real database's answers come in more pieces on a busy machine."""
    return {what: min(each[what] for each in tries) for what in tries[0]}


def recorded() -> Mapping[str, Counts]:
    """The budget, by read."""
    found: Mapping[str, Counts] = json.loads(BUDGET.read_text())
    return found


async def _today() -> Mapping[str, Counts]:
    async with postgres_server() as server, reads(server.url, "budget") as found:
        return {name: least(*[await count(read) for _ in range(TRIES)]) for name, read in found.items()}


if __name__ == "__main__":
    today = asyncio.run(_today())
    BUDGET.write_text(json.dumps(today, indent=2) + "\n")
    print(json.dumps(today, indent=2))
