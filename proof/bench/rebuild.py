"""How fast the orders view is built anew, beside what a catch-up does with the same events.

``python -m proof.bench.rebuild [EVENTS]``, on its own Postgres. Rates are per second of processor time, of this
process and of Postgres: they hold on a busy machine, too.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import psutil
import uvloop

from projector.app import PACKAGE
from projector.reads import ROWS
from projector.views.orders import ORDERS
from shop.orders.v1.events_pb2 import OrderApproved, OrderCreated
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from twinlog import Metadata, Money, PostgresViews, Projection, Recorded, Schema, StreamId
from twinlog.dev import EmbeddedPostgres
from twinlog.testing.internals import (
    NANOS_PER_UNIT,
    Batch,
    DeadLettering,
    NewEvent,
    PostgresLog,
    RandomIds,
    ReadAhead,
    SystemClock,
    database_url,
    from_wire,
    open_log,
    reader_of,
    to_wire,
)

_EVENTS = 60_000
_ROUNDS = 3
_DELIVERED = 500
"""Events that a cursor hands on at once."""
_IDS = RandomIds()
Run = Callable[[DeadLettering, Projection], Awaitable[None]]


async def grow(log: PostgresLog, count: int) -> None:
    """Orders that are created and approved."""
    total = Money(NANOS_PER_UNIT, "EUR").to_proto()
    for _ in range(count // 1_000):
        expects, new = {}, []
        for _ in range(500):
            order, customer, correlation = (str(_IDS.uuid7()) for _ in range(3))
            stream = StreamId("order", order)
            expects[stream] = 0
            created = OrderCreated(
                order_id=order, customer_id=customer, total=total, saga_mode=SAGA_MODE_CHOREOGRAPHY
            )
            for version, message in enumerate((created, OrderApproved(order_id=order)), 1):
                metadata = Metadata(correlation, "rpc/CreateOrder", "", "bench")
                new.append(NewEvent.of(stream, version, _IDS.uuid7(), message, metadata, order))
        await log.append(Batch(datetime.now(UTC), expects, new))


def _postgres_seconds() -> float:
    """Processor time of all children of this process."""
    found = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        found += times.user + times.system
    return found


async def _measure(what: str, own: PostgresLog, events: int, run: Run) -> None:
    views = PostgresViews(own, PACKAGE, ROWS)
    home = Projection("projector.orders", [ORDERS], views, schema=Schema())
    build = await views.begin_build(ORDERS, 1)
    kept = home.of_build(ORDERS, build)
    handler = DeadLettering(kept, own, clock=SystemClock(), ids=_IDS, schema=Schema())
    wall, python, postgres = perf_counter(), process_time(), _postgres_seconds()
    await run(handler, kept)
    wall, python = perf_counter() - wall, process_time() - python
    postgres = _postgres_seconds() - postgres
    while seconds := await views.drop_build(build, [kept.name], build.table):
        await asyncio.sleep(seconds)
    print(
        f"{what:<28} {events / wall:>9,.0f}/s by the clock   python {1e6 * python / events:5.1f} µs   "
        f"postgres {1e6 * postgres / events:5.1f} µs   {events / python:>9,.0f}/s of python   "
        f"{events / (python + postgres):>9,.0f}/s of both"
    )


def _filling(url: str, events: int) -> Run:
    async def fill(handler: DeadLettering, kept: Projection) -> None:
        after = 0
        async with (
            reader_of(url, "orders") as reader,
            ReadAhead(reader, 0, events, kept.prepare) as ahead,
        ):
            while chunk := await ahead.next():
                after = await handler.handle(chunk, after)
        assert after == events

    return fill


def _catching_up(wires: list[bytes]) -> Run:
    async def catch_up(handler: DeadLettering, _kept: Projection) -> None:
        after = 0
        for start in range(0, len(wires), _DELIVERED):
            events = [from_wire("orders", data) for data in wires[start : start + _DELIVERED]]
            after = await handler.handle(events, after)

    return catch_up


@asynccontextmanager
async def _logs(url: str) -> AsyncIterator[tuple[PostgresLog, PostgresLog]]:
    async with (
        open_log(url, "shop_orders", "orders", size=1) as orders,
        open_log(url, "shop_views", "projector", PACKAGE, size=3) as own,
    ):
        yield orders, own


async def main(events: int) -> None:
    """Prints a line for each measurement."""
    with TemporaryDirectory() as folder:
        async with EmbeddedPostgres(Path(folder)) as server, _logs(server.url) as (orders, own):
            await _measured(server.url, orders, own, events)


async def _measured(url: str, orders: PostgresLog, own: PostgresLog, events: int) -> None:
    await grow(orders, events)
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # as in a service
    wires: list[bytes] = []
    read: list[Recorded] | Any = await orders.read(0, 5_000)
    while read:
        wires += map(to_wire, read)
        read = await orders.read(read[-1].position, 5_000)
    for _ in range(_ROUNDS):
        await _measure("catch-up, without the client", own, events, _catching_up(wires))
        fill = _filling(database_url(url, "shop_orders"), events)
        await _measure("rebuild", own, events, fill)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in a service
        runner.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else _EVENTS))
