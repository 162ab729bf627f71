"""The least program that answers the projector's queries: grpc.aio, and one statement of asyncpg a call.

It reads the same tables and gives the same answers. Left out is all else: checks, errors, page tokens and filters,
deadlines, outages, metrics, logs. Run as ``python -m proof.bench.least_reads ADDRESS POSTGRES_URL DATABASE
NATS_URL``. Names are opened by the library, with keys from its database.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeAlias

import asyncpg
import grpc.aio
import nats
import uvloop
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.type.money_pb2 import Money
from nats.aio.msg import Msg

# Imported for the message types that they register: the timeline shows every event.
import shop.customers.v1.events_pb2
import shop.orders.v1.events_pb2
import shop.sagas.v1.commands_pb2  # noqa: F401
import twinlog.v1.saga_pb2  # noqa: F401
from shop.orders.v1.order_pb2 import ORDER_STATE_PENDING
from shop.queries.v1 import customer_query_service_pb2 as customers
from shop.queries.v1 import order_query_service_pb2 as orders
from shop.queries.v1.customer_query_service_pb2_grpc import (
    CustomerQueryServiceServicer,
    add_CustomerQueryServiceServicer_to_server,
)
from shop.queries.v1.order_query_service_pb2_grpc import (
    OrderQueryServiceServicer,
    add_OrderQueryServiceServicer_to_server,
)
from twinlog import Personal, Settings, timestamp
from twinlog.rpc import freshness
from twinlog.testing.internals import Wrapping, database_url, message_class, open_keys

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Pool: TypeAlias = "asyncpg.Pool[Any]"

_CONNECTIONS = 5
_KEYS = str(Settings.model_fields["personal_keys_database"].default)
_NANOS = "div(total_nanos, 1000000000)::bigint AS units, mod(total_nanos, 1000000000)::integer AS nanos"
_ORDER = f"""SELECT order_id, customer_id, currency, {_NANOS}, state, reason, saga_mode, created_at, updated_at, version
    FROM orders"""
_ONE_ORDER = f"{_ORDER} WHERE order_id = $1"
_FRESH_ORDER = f"""SELECT o.*, c.position FROM ({_ORDER}) o, checkpoints c
    WHERE order_id = $1 AND consumer = 'projector.orders'"""
_SOME_ORDERS = f"{_ORDER} ORDER BY created_position DESC LIMIT $1"
_CUSTOMER = """SELECT customer_id, name, currency, created_at, updated_at,
    div(limit_nanos, 1000000000)::bigint AS units, mod(limit_nanos, 1000000000)::integer AS nanos,
    div(reserved_nanos, 1000000000)::bigint AS held, mod(reserved_nanos, 1000000000)::integer AS held_nanos,
    div(limit_nanos - reserved_nanos, 1000000000)::bigint AS rest,
    mod(limit_nanos - reserved_nanos, 1000000000)::integer AS rest_nanos
    FROM customers WHERE customer_id = $1"""
_TIMELINE = """SELECT log, position, type, payload, recorded_at, causation_id, correlation_id, actor
    FROM timeline WHERE order_id = $1 OR (log = 'sagas' AND stream_id = ANY (ARRAY (
        SELECT stream_id FROM timeline WHERE order_id = $1 AND order_id <> ''))) ORDER BY recorded_at, log, position"""


class Orders(OrderQueryServiceServicer):
    """shop.queries.v1.OrderQueryService."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.watchers: dict[str, set[asyncio.Queue[orders.Order]]] = defaultdict(set)

    async def GetOrder(self, request: orders.GetOrderRequest, _context: Context) -> orders.GetOrderResponse:
        if not request.consistency_token:
            return orders.GetOrderResponse(order=await self._order(request.order_id))
        wanted = int(request.consistency_token.partition(":")[2])
        while True:
            (row,) = await self._pool.fetch(_FRESH_ORDER, request.order_id)
            if row["position"] >= wanted:
                return orders.GetOrderResponse(order=_order(row))
            await asyncio.sleep(0.01)

    async def ListOrders(
        self, request: orders.ListOrdersRequest, _context: Context
    ) -> orders.ListOrdersResponse:
        rows = await self._pool.fetch(_SOME_ORDERS, request.page_size)
        return orders.ListOrdersResponse(orders=[_order(row) for row in rows])

    async def GetOrderTimeline(
        self, request: orders.GetOrderTimelineRequest, _context: Context
    ) -> orders.GetOrderTimelineResponse:
        rows = await self._pool.fetch(_TIMELINE, request.order_id)
        return orders.GetOrderTimelineResponse(entries=[_entry(row) for row in rows])

    async def WatchOrder(
        self, request: orders.WatchOrderRequest, _context: Context
    ) -> AsyncIterator[orders.WatchOrderResponse]:
        mine: asyncio.Queue[orders.Order] = asyncio.Queue()
        self.watchers[request.order_id].add(mine)
        order = await self._order(request.order_id)
        yield orders.WatchOrderResponse(order=order)
        while order.state == ORDER_STATE_PENDING:
            order = await mine.get()
            yield orders.WatchOrderResponse(order=order)
        self.watchers[request.order_id].discard(mine)

    async def changed(self, message: Msg) -> None:
        """One read a changed order, for all who watch it."""
        for order_id in json.loads(message.data)["orders"]:
            if watchers := self.watchers.get(order_id):
                order = await self._order(order_id)
                for watcher in watchers:
                    watcher.put_nowait(order)

    async def _order(self, order_id: str) -> orders.Order:
        (row,) = await self._pool.fetch(_ONE_ORDER, order_id)
        return _order(row)


class Customers(CustomerQueryServiceServicer):
    """shop.queries.v1.CustomerQueryService."""

    def __init__(self, pool: Pool, personal: Personal) -> None:
        self._pool = pool
        self._personal = personal

    async def GetCustomer(
        self, request: customers.GetCustomerRequest, _context: Context
    ) -> customers.GetCustomerResponse:
        (row,) = await self._pool.fetch(_CUSTOMER, request.customer_id)
        currency = row["currency"]
        return customers.GetCustomerResponse(
            customer=customers.Customer(
                customer_id=row["customer_id"],
                name=await self._personal.open(row["customer_id"], row["name"]),
                credit_limit=Money(currency_code=currency, units=row["units"], nanos=row["nanos"]),
                reserved=Money(currency_code=currency, units=row["held"], nanos=row["held_nanos"]),
                available=Money(currency_code=currency, units=row["rest"], nanos=row["rest_nanos"]),
                created_at=timestamp(row["created_at"]),
                updated_at=timestamp(row["updated_at"]),
            )
        )


def _order(row: Any) -> orders.Order:
    return orders.Order(
        order_id=row["order_id"],
        customer_id=row["customer_id"],
        total=Money(currency_code=row["currency"], units=row["units"], nanos=row["nanos"]),
        state=row["state"],
        rejection_reason=row["reason"],
        saga_mode=row["saga_mode"],
        created_at=timestamp(row["created_at"]),
        updated_at=timestamp(row["updated_at"]),
        version=row["version"],
    )


def _entry(row: Any) -> orders.TimelineEntry:
    message = message_class(row["type"]).FromString(row["payload"])
    payload, value = Struct(), MessageToDict(message, preserving_proto_field_name=True)
    payload.update(value)
    return orders.TimelineEntry(
        log=row["log"],
        position=row["position"],
        type=row["type"],
        recorded_at=timestamp(row["recorded_at"]),
        payload_json=json.dumps(value),
        payload=payload,
        cause=row["causation_id"],
        actor=row["actor"],
        correlation_id=row["correlation_id"],
    )


async def _no_second_statement(_connection: Any) -> None:
    """By default asyncpg clears the session after every use of it, which costs a round trip."""


async def main(arguments: Sequence[str]) -> None:
    """Serves until it is killed."""
    address, postgres_url, database, nats_url = arguments
    pool = await asyncpg.create_pool(
        database_url(postgres_url, database),
        min_size=_CONNECTIONS,
        max_size=_CONNECTIONS,
        reset=_no_second_statement,
    )
    # Abstract to the type checker alone: what is left out answers UNIMPLEMENTED.
    servicer, server = Orders(pool), grpc.aio.server()  # type: ignore[abstract]
    add_OrderQueryServiceServicer_to_server(servicer, server)
    async with open_keys(postgres_url, _KEYS, Wrapping({})) as keys:
        personal = Personal(keys)
        add_CustomerQueryServiceServicer_to_server(Customers(pool, personal), server)  # type: ignore[abstract]
        bus = await nats.connect(nats_url)
        await bus.subscribe(freshness.SUBJECT, cb=servicer.changed)
        server.add_insecure_port(address)
        await server.start()
        await asyncio.gather(server.wait_for_termination(), personal.known.run())


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    uvloop.run(main(sys.argv[1:]))
