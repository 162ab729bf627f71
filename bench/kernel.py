"""The kernel by its parts, one at a time, in one process on real servers: ``python -m bench.kernel [--quick]``.

Settings as a service's; the databases it makes are its own. Prints its rows as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from statistics import median
from time import perf_counter

from bench import histories
from bench.report import Row
from customer_svc.domain import CUSTOMER, Customer, ReserveCredit
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from twinlog import logs
from twinlog.config import Settings, load
from twinlog.cursor import Cursor
from twinlog.event import Recorded, StreamId
from twinlog.jetstream import JetStreamTwin, close, connect
from twinlog.log import Log, Snapshot
from twinlog.money import NANOS_PER_UNIT, Money
from twinlog.ports import RandomIds, SystemClock
from twinlog.postgres import open_log
from twinlog.relay import Relay
from twinlog.runtime import Shutdown, run
from twinlog.snapshots import StateCodec
from twinlog.transaction import Transaction
from twinlog.twin import Twin
from twinlog.writer import Outcome, Writer

QUICK = "--quick"
_SIZES = (1, 8, 64, 256)
_LENGTHS = (10, 1_000, 100_000)
_TOGETHER = 256
_STREAMS = 64


class Counting:
    """A handler that does nothing but note how far it is."""

    consumer = "bench"
    types: Sequence[str] = ()
    tag = ""

    def __init__(self, head: int) -> None:
        self._head = head
        self.reached = asyncio.Event()

    async def checkpoint(self) -> int:
        return 0

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        if events[-1].position >= self._head:
            self.reached.set()
        return events[-1].position


async def append(log: Log, seconds: float) -> list[Row]:
    """Batches one after the other, every event on a stream of its own, as when orders are created."""
    return [
        Row(f"append, {size} events a batch", "events/s", [await _append(log, size, seconds)])
        for size in _SIZES
    ]


async def _append(log: Log, size: int, seconds: float) -> float:
    spent, appended = 0.0, 0
    while spent < seconds:
        new = [histories.new_event(id, 1, next(histories.events(id, 1))) for id in histories.ids(size)]
        start = perf_counter()
        await histories.append(log, {event.stream: 0 for event in new}, new)
        spent += perf_counter() - start
        appended += size
    return appended / spent


async def relay(log: Log, twin: Twin) -> Row:
    """The whole log, read and published."""
    head, copying = await log.head(), Relay(log, twin)
    start = perf_counter()
    task = asyncio.create_task(copying.run())
    await copying.drain(120)
    took = perf_counter() - start
    task.cancel()
    assert copying.position == head
    return Row("relay: a log into its twin", "events/s", [head / took])


async def cursor(twin: Twin) -> Row:
    """The whole twin, delivered and decoded."""
    head = (await twin.state()).last
    counting = Counting(head)
    start = perf_counter()
    task = asyncio.create_task(Cursor(twin, counting).run())
    async with asyncio.timeout(120):
        await counting.reached.wait()
    took = perf_counter() - start
    task.cancel()
    return Row("cursor: a twin to a handler that does nothing", "events/s", [head / took])


async def execute(log: Log, rounds: int) -> list[Row]:
    """Commands on customers of ten events: one at a time, and 256 at a time."""
    customers = histories.ids(_STREAMS)
    for id in customers:
        await histories.grow(log, id, 10)
    rows = []
    for cached, what in ((20_000, "cached"), (0, "read anew")):
        async with _writing(log, cached) as writer:
            await asyncio.gather(*(_reserve(writer, id) for id in customers))
            alone = [await _timed(writer, id) for _ in range(max(1, rounds // 4)) for id in customers]
            start = perf_counter()
            for _ in range(rounds):
                await asyncio.gather(*(_reserve(writer, customers[n % _STREAMS]) for n in range(_TOGETHER)))
            rate = rounds * _TOGETHER / (perf_counter() - start)
        rows.append(Row(f"execute, one at a time, state {what}", "ms", [median(alone) * 1e3]))
        rows.append(Row(f"execute, 256 at a time, state {what}", "commands/s", [rate]))
    return rows


async def rehydrate(log: Log, tries: int) -> list[Row]:
    """The first read of a stream in a new process; then commands on a short and a long one, turn by turn."""
    rows, customers = [], histories.ids(len(_LENGTHS))
    for id, length in zip(customers, _LENGTHS, strict=True):
        state, position = await histories.grow(log, id, length)
        rows.append(Row(f"rehydrate {length:,} events", "ms", await _first_reads(log, id, tries)))
        await log.save([_snapshot(id, length, position, state)])
        reads = await _first_reads(log, id, tries)
        rows.append(Row(f"rehydrate {length:,} events, from a snapshot", "ms", reads))
    return [*rows, *await _commands(log, customers, tries * 50)]


async def _commands(log: Log, customers: Sequence[str], tries: int) -> list[Row]:
    took: dict[str, list[float]] = {id: [] for id in (customers[0], customers[-1])}
    async with _writing(log) as writer:
        for id in took:
            await _reserve(writer, id)
        for _ in range(tries):
            for id, times in took.items():
                times.append(await _timed(writer, id) * 1e3)
    short, long = (median(times) for times in took.values())
    return [
        Row(f"command on a customer of {_LENGTHS[0]:,} events", "ms", [short]),
        Row(f"command on a customer of {_LENGTHS[-1]:,} events", "ms", [long]),
        Row(f"command, {_LENGTHS[-1]:,} events against {_LENGTHS[0]:,}", "×", [long / short]).aim(
            value=1.2, most=True
        ),
    ]


async def _first_reads(log: Log, id: str, tries: int) -> list[float]:
    times = []
    for _ in range(tries):
        async with _writing(log) as writer:
            start = perf_counter()
            await writer.execute(lambda transaction: transaction.state(CUSTOMER, id))
            times.append((perf_counter() - start) * 1e3)
    return times


def _snapshot(id: str, version: int, position: int, state: Customer) -> Snapshot:
    codec = StateCodec(CUSTOMER)
    return Snapshot(StreamId(CUSTOMER.name, id), version, position, codec.schema, codec.encode(state))


@asynccontextmanager
async def _writing(log: Log, cached: int = 20_000) -> AsyncIterator[Writer]:
    async with Writer(log, clock=SystemClock(), ids=RandomIds(), cached_streams=cached) as writer:
        yield writer
        await writer.drain()


async def _timed(writer: Writer, customer_id: str) -> float:
    start = perf_counter()
    await _reserve(writer, customer_id)
    return perf_counter() - start


async def _reserve(writer: Writer, customer_id: str) -> Outcome[Customer]:
    (order_id,) = histories.ids(1)
    command = ReserveCredit(customer_id, order_id, Money(NANOS_PER_UNIT, "EUR"), SAGA_MODE_CHOREOGRAPHY)

    def reserve(transaction: Transaction) -> Customer:
        return transaction.do(CUSTOMER, customer_id, command)

    return await writer.execute(reserve, hint=[(CUSTOMER, customer_id)])


async def main(_shutdown: Shutdown) -> None:
    """Measures everything, and prints it."""
    quick, settings = QUICK in sys.argv, load(Settings)
    logs.configure("warning")
    client = await connect(settings.nats_url, "bench")
    try:
        async with (
            open_log(settings.postgres_url, "bench_append", "bench_append") as flow,
            open_log(settings.postgres_url, "bench_execute", "bench_execute") as commands,
        ):
            twin = JetStreamTwin(client, flow.name)
            rows = await append(flow, 0.5 if quick else 2.0)
            rows += [await relay(flow, twin), await cursor(twin)]
            rows += await execute(commands, 4 if quick else 16)
            rows += await rehydrate(commands, 1 if quick else 5)
    finally:
        await close(client)
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    sys.exit(run(main))
