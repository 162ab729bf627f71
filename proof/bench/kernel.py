"""The kernel by its parts, one at a time, in one process on real servers: ``python -m proof.bench.kernel [--quick]``.

Settings as a service's; the databases it makes are its own. Prints its rows as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from statistics import median
from time import perf_counter

from customer_svc.domain import CUSTOMER, Customer, ReserveCredit
from proof.bench import histories
from proof.bench.bare import Bare, open_bare
from proof.bench.report import Row
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from twinlog import Log, Money, Recorded, Schema, Settings, Shutdown, StreamId, Transaction, Writer, load, run
from twinlog.testing.internals import (
    NANOS_PER_UNIT,
    Cursor,
    JetStreamTwin,
    NewEvent,
    Outcome,
    RandomIds,
    Relay,
    Snapshot,
    StateCodec,
    SystemClock,
    Twin,
    close,
    configure_logging,
    connect,
    open_log,
    to_wire,
)

QUICK = "--quick"
_SIZES = (1, 8, 64, 256)
_LENGTHS = (10, 1_000, 100_000)
_TOGETHER = 256
_STREAMS = 64
_TURNS = 50
CURSOR = "cursor: a twin to a handler that does nothing"


class Counting:
    """A handler that does nothing but note how far it is."""

    name = "bench"
    types: Sequence[str] = ()
    routing_key = ""

    def __init__(self, head: int) -> None:
        self._head = head
        self.reached = asyncio.Event()

    async def checkpoint(self) -> int:
        return 0

    async def last_handled(self) -> None:
        return None

    async def stored(self) -> int:
        return 0

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        if events[-1].position >= self._head:
            self.reached.set()
        return events[-1].position


async def append(log: Log, bare: Bare, rounds: int, seconds: float) -> list[Row]:
    """Batches one after the other, every event on its own stream, as when orders are created."""
    rows = [
        Row(f"append, {_events(size)} a batch", "events/s", "a bare INSERT of as many") for size in _SIZES
    ]
    for _ in range(rounds):
        for size, row in zip(_SIZES, rows, strict=True):
            ours = theirs = 0.0
            batches = 0
            while ours < seconds:
                new = _new(size)
                ours += await _timed(_append(log, new))
                theirs += await _timed(bare.insert(new))
                batches += 1
            row.add(batches * size / ours, batches * size / theirs)
    return rows


async def relay(log: Log, twin: Twin, bare: Bare, rounds: int) -> Row:
    """The whole log, read and published into a new twin."""
    row = Row("relay: a log into its twin", "events/s", "bare messages, fenced")
    head, (event,) = await log.head(), await log.read(0, 1)
    for _ in range(rounds):
        await twin.delete()
        copying = Relay(log, twin)
        task = asyncio.create_task(copying.run())
        ours = await _timed(copying.drain(120))
        task.cancel()
        assert copying.position == head
        async with bare.stream() as bus:
            row.add(head / ours, head / await _timed(bare.publish(bus, head, to_wire(event))))
    return row


async def cursor(twin: Twin, bare: Bare, rounds: int) -> Row:
    """The whole twin, delivered and decoded."""
    row = Row(CURSOR, "events/s", "a bare pull, not decoded")
    head = (await twin.state()).last
    for _ in range(rounds):
        counting = Counting(head)
        task = asyncio.create_task(Cursor(twin, counting).run())
        async with asyncio.timeout(120):
            ours = await _timed(counting.reached.wait())
        task.cancel()
        async with bare.connected() as bus:
            row.add(head / ours, head / await _timed(bare.pull(bus, twin.name, head)))
    return row


async def execute(log: Log, rounds: int) -> list[Row]:
    """Commands on customers of ten events: one at a time, and 256 at a time."""
    customers = histories.ids(_STREAMS)
    for id in customers:
        await histories.grow(log, id, 10)
    rows = []
    for cached, what in ((20_000, "cached"), (0, "read anew")):
        alone = Row(f"execute, one at a time, state {what}", "ms", "an append of 1 event")
        together = Row(
            f"execute, {_TOGETHER} at a time, state {what}", "commands/s", f"an append of {_TOGETHER} events"
        )
        async with _writing(log, cached) as writer:
            await asyncio.gather(*(_reserve(writer, id) for id in customers))
            for _ in range(rounds):
                took = [
                    (await _timed(_reserve(writer, id)), await _timed(_append(log, _new(1))))
                    for id in customers
                ]
                alone.add(*(median(times) * 1e3 for times in zip(*took, strict=True)))
                commands = (_reserve(writer, customers[n % _STREAMS]) for n in range(_TOGETHER))
                ours = await _timed(asyncio.gather(*commands))
                together.add(_TOGETHER / ours, _TOGETHER / await _timed(_append(log, _new(_TOGETHER))))
        rows += [alone, together]
    return rows


async def rehydrate(log: Log, bare: Bare, tries: int) -> list[Row]:
    """The first read of a stream in a new process; then commands on a short and a long one, turn by turn."""
    rows, customers = [], histories.ids(len(_LENGTHS))
    for id, length in zip(customers, _LENGTHS, strict=True):
        state, position = await histories.grow(log, id, length)
        whole = Row(f"rehydrate {length:,} events", "ms", "a bare SELECT of them")
        for _ in range(tries):
            whole.add(await _first_read(log, id), await _timed(bare.select(id)) * 1e3)
        await log.save([_snapshot(id, length, position, state)])
        short = Row(f"rehydrate {length:,} events, from a snapshot", "ms", "without a snapshot")
        for value in whole.values:
            short.add(await _first_read(log, id), value)
        rows += [whole, short]
    return [*rows, *await _commands(log, customers, tries)]


async def _commands(log: Log, customers: Sequence[str], rounds: int) -> list[Row]:
    ids = (customers[0], customers[-1])
    short, long = rows = [
        Row(f"command on a customer of {length:,} events", "ms", base)
        for length, base in (
            (_LENGTHS[0], "an append of 1 event"),
            (_LENGTHS[-1], f"on one of {_LENGTHS[0]:,} events"),
        )
    ]
    async with _writing(log) as writer:
        for id in ids:
            await _reserve(writer, id)
        for _ in range(rounds):
            took = [
                (*[await _timed(_reserve(writer, id)) for id in ids], await _timed(_append(log, _new(1))))
                for _ in range(_TURNS)
            ]
            of_short, of_long, appended = (median(times) * 1e3 for times in zip(*took, strict=True))
            short.add(of_short, appended)
            long.add(of_long, of_short)
    long.aim(ratio=1.2, most=True)
    return rows


async def _first_read(log: Log, id: str) -> float:
    async with _writing(log) as writer:
        return await _timed(writer.execute(lambda transaction: transaction.state(CUSTOMER, id))) * 1e3


def _snapshot(id: str, version: int, position: int, state: Customer) -> Snapshot:
    codec = StateCodec(CUSTOMER)
    return Snapshot(StreamId(CUSTOMER.name, id), version, position, codec.schema, codec.encode(state))


@asynccontextmanager
async def _writing(log: Log, cached: int = 20_000) -> AsyncIterator[Writer]:
    async with Writer(
        log, schema=Schema(), clock=SystemClock(), ids=RandomIds(), cached_streams=cached
    ) as writer:
        yield writer
        await writer.drain()


async def _timed(work: Awaitable[object]) -> float:
    start = perf_counter()
    await work
    return perf_counter() - start


def _new(count: int) -> list[NewEvent]:
    """Events on streams of their own."""
    return [histories.new_event(id, 1, next(histories.events(id, 1))) for id in histories.ids(count)]


async def _append(log: Log, new: Sequence[NewEvent]) -> None:
    await histories.append(log, {event.stream: 0 for event in new}, new)


def _events(count: int) -> str:
    return f"{count} event{'s' * (count > 1)}"


async def _reserve(writer: Writer, customer_id: str) -> Outcome[Customer]:
    (order_id,) = histories.ids(1)
    command = ReserveCredit(customer_id, order_id, Money(NANOS_PER_UNIT, "EUR"), SAGA_MODE_CHOREOGRAPHY)

    def reserve(transaction: Transaction) -> Customer:
        return transaction.do(CUSTOMER, customer_id, command)

    return await writer.execute(reserve, preload=[(CUSTOMER, customer_id)])


async def main(_shutdown: Shutdown) -> None:
    """Measures everything, and prints it."""
    quick, settings = QUICK in sys.argv, load(Settings)
    configure_logging("warning")
    client = await connect(settings.nats_url, "bench")
    try:
        async with (
            open_log(settings.postgres_url, "bench_append", "bench_append") as flow,
            open_log(settings.postgres_url, "bench_execute", "bench_execute") as commands,
            open_bare(settings, "bench_execute") as bare,
        ):
            twin, rounds = JetStreamTwin(client, flow.name), 1 if quick else 3
            rows = await append(flow, bare, rounds, 0.2)
            rows += [await relay(flow, twin, bare, rounds), await cursor(twin, bare, rounds)]
            rows += await execute(commands, rounds * 3)
            rows += await rehydrate(commands, bare, rounds)
    finally:
        await close(client)
    print(json.dumps([asdict(row) for row in rows]))


if __name__ == "__main__":
    sys.exit(run(main))
