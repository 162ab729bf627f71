"""The baseline: the same saga without a kernel, in as few lines as it takes. Three processes: orders, customers, view.

CreateOrder → group-committed insert → atomic batch → reservation, inserted and published alike → approval, likewise
→ one upsert in the view. As durable as the shop (same servers, same fsync) and as exact: every row names the event that
caused it, so the newest row is the checkpoint. Left out is all that makes a kernel: replicas, retries, outages,
idempotent requests, deadlines, compensation, validation, errors, logs, metadata, health.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import grpc
import grpc.aio
import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api
from uuid_utils import uuid7

from shop.orders.v1 import order_service_pb2 as pb
from shop.orders.v1.events_pb2 import OrderCreated
from shop.orders.v1.order_pb2 import ORDER_STATE_PENDING

CHANGED = "baseline.changed"
"""Core-NATS subject: how far the view is, after each of its commits."""
SERVICE = "shop.orders.v1.OrderService"
CREATED, APPROVED = "created", "approved"
_BATCH = 500
_LIMIT = 10**12
_LOG = """CREATE TABLE IF NOT EXISTS {}
    (position bigint PRIMARY KEY, cause bigint, order_id text, type text, payload bytea)"""
_INSERT = (
    "INSERT INTO {} SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[])"
)
_VIEW = "CREATE TABLE IF NOT EXISTS view (order_id text PRIMARY KEY, type text, position bigint)"
_UPSERT = """INSERT INTO view SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[])
    ON CONFLICT (order_id) DO UPDATE SET type = excluded.type, position = excluded.position"""


class Row(NamedTuple):
    """An event: what caused it, whose it is, what it says."""

    cause: int
    order_id: str
    type: str
    payload: bytes


class Log:
    """A table and its stream. Whatever waits is inserted in one call, then published as one batch."""

    def __init__(self, db: asyncpg.Connection[Any], bus: Client, name: str) -> None:
        self.db, self.bus, self.name, self.position = db, bus, name, 0
        self.waiting: list[tuple[Row, asyncio.Future[None] | None]] = []
        self.committed: list[tuple[int, Row]] = []
        self.wake, self.ready = asyncio.Event(), asyncio.Event()

    def add(self, row: Row, done: asyncio.Future[None] | None = None) -> None:
        self.waiting.append((row, done))
        self.wake.set()

    async def commit(self) -> None:
        while await self.wake.wait():
            self.wake.clear()
            batch, self.waiting = self.waiting, []
            rows = [(self.position + i, row) for i, (row, _) in enumerate(batch, 1)]
            columns = zip(*((position, *row) for position, row in rows), strict=True)
            await self.db.execute(_INSERT.format(self.name), *map(list, columns))
            self.position += len(rows)
            self.committed += rows
            self.ready.set()
            for _, done in batch:
                if done and not done.done():
                    done.set_result(None)

    async def publish(self) -> None:
        while await self.ready.wait():
            batch, self.committed = self.committed[:_BATCH], self.committed[_BATCH:]
            if not self.committed:
                self.ready.clear()
            id, last = uuid4().hex, len(batch)
            for number, (position, row) in enumerate(batch, 1):
                headers = {"Nats-Batch-Id": id, "Nats-Batch-Sequence": str(number)} if last > 1 else {}
                if number == 1:
                    headers["Nats-Expected-Last-Sequence"] = str(position - 1)
                subject, data = f"{self.name}.{row.type}.{row.order_id}", row.payload
                if number < last:
                    await self.bus.publish(subject, data, headers=headers)
                    continue
                if last > 1:
                    headers["Nats-Batch-Commit"] = "1"
                reply = await self.bus.request(subject, data, timeout=10, headers=headers)
                assert json.loads(reply.data).get("seq") == position, reply.data


async def follow(bus: Client, name: str, handle: Callable[[Sequence[tuple[int, Msg]]], Any]) -> None:
    """One endless, ack-less pull; ``handle`` gets whatever has come, with the sequence of each."""
    arrived, messages = asyncio.Event(), list[Msg]()

    async def on_message(message: Msg) -> None:
        messages.append(message)
        arrived.set()

    consumer, inbox = uuid4().hex, bus.new_inbox()
    await bus.subscribe(inbox, cb=on_message)
    config = api.ConsumerConfig(name=consumer, ack_policy=api.AckPolicy.NONE, mem_storage=True)
    await bus.jsm().add_consumer(name, config)
    await bus.publish(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer}", b'{"batch":100000000}', reply=inbox)
    while await arrived.wait():
        arrived.clear()
        batch, messages[:] = messages[:], []
        handled = handle([(int(message.reply.split(".")[5]), message) for message in batch])
        if handled:
            await handled


async def orders(log: Log, address: str) -> None:
    async def create(request: pb.CreateOrderRequest, _context: Any) -> pb.CreateOrderResponse:
        order_id, done = str(uuid7()), asyncio.get_running_loop().create_future()
        event = OrderCreated(order_id=order_id, customer_id=request.customer_id, total=request.total)
        log.add(Row(0, order_id, CREATED, event.SerializeToString()), done)
        await done
        return pb.CreateOrderResponse(order_id=order_id, state=ORDER_STATE_PENDING)

    def approve(batch: Sequence[tuple[int, Msg]]) -> None:
        for position, message in batch:
            log.add(Row(position, message.subject.split(".")[2], APPROVED, b""))

    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(
        create, pb.CreateOrderRequest.FromString, pb.CreateOrderResponse.SerializeToString
    )
    service = grpc.method_handlers_generic_handler(SERVICE, {"CreateOrder": method})
    server.add_generic_rpc_handlers([service])
    server.add_insecure_port(address)
    await server.start()
    await follow(log.bus, "baseline_customers", approve)


async def customers(log: Log) -> None:
    available: dict[str, int] = {}

    def reserve(batch: Sequence[tuple[int, Msg]]) -> None:
        for position, message in batch:
            if CREATED in message.subject:
                order = OrderCreated.FromString(message.data)
                left = available.get(order.customer_id, _LIMIT) - order.total.units
                if left >= 0:
                    available[order.customer_id] = left
                    log.add(Row(position, order.order_id, "reserved", message.data))

    await follow(log.bus, "baseline_orders", reserve)


async def view(db: asyncpg.Connection[Any], bus: Client) -> None:
    async def upsert(batch: Sequence[tuple[int, Msg]]) -> None:
        rows = {id: (id, type, position) for position, m in batch for _, type, id in [m.subject.split(".")]}
        await db.execute(_UPSERT, *map(list, zip(*rows.values(), strict=True)))
        await bus.publish(CHANGED, json.dumps({"position": batch[-1][0]}).encode())

    await follow(bus, "baseline_orders", upsert)


async def main(role: str, postgres_url: str, nats_url: str, address: str) -> None:
    """Runs one of the three processes; the database ``baseline`` and both streams are there and empty."""
    bus = await nats.connect(nats_url)
    db = await asyncpg.connect(f"{postgres_url}/baseline")
    log = Log(db, bus, f"baseline_{role}")
    roles: dict[str, Callable[[], Awaitable[None]]] = {
        "orders": lambda: orders(log, address),
        "customers": lambda: customers(log),
        "view": lambda: view(db, bus),
    }
    await asyncio.gather(log.commit(), log.publish(), roles[role]())


async def prepare(db: asyncpg.Connection[Any], bus: Client) -> None:
    """Makes the tables and the streams."""
    await db.execute(";".join([_LOG.format("baseline_orders"), _LOG.format("baseline_customers"), _VIEW]))
    for name in ("baseline_orders", "baseline_customers"):
        config = api.StreamConfig(name=name, subjects=[f"{name}.*.*"], allow_atomic=True)
        await bus.jsm().add_stream(config)


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    role, address = sys.argv[1:]
    uvloop.run(main(role, os.environ["POSTGRES_URL"], os.environ["NATS_URL"], address))
