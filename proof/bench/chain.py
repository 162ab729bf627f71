"""What the chain costs: ``python -m proof.bench.chain`` appends batches with a link and without, in turn, in one run.

It counts processor time, of this process and of the one of Postgres that serves it, so that a busy machine adds little;
then the bytes that links take, and how fast a chain is verified.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from shop.orders.v1.events_pb2 import OrderCreated
from stack.console import console
from twinlog import Metadata, StreamId
from twinlog.audit import ChainAudit, Findings
from twinlog.dev import EmbeddedPostgres
from twinlog.testing.internals import (
    Connection,
    NewEvent,
    PostgresLog,
    RandomIds,
    SystemClock,
    leaves,
    load_queries,
    open_log,
    summed,
)

SIZES = (1, 20, 100)
"""Events of a batch: a saga alone, and under load."""
_EVENTS = 1_000
"""Appended in each turn."""
_TURNS = 25
_APPEND = load_queries("twinlog.postgres.sql")["append"]
SAGAS = {"choreography": (555, 3), "orchestration": (1010, 8)}
"""µs of processor time and events of a saga, from docs/bench/budget.md."""


class Spent(NamedTuple):
    """µs of processor time an event."""

    here: float
    postgres: float


async def main() -> None:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="chain-", dir="/var/tmp"))
        server = await stack.enter_async_context(EmbeddedPostgres(Path(folder) / "postgres"))
        log = await stack.enter_async_context(open_log(server.url, "bench", "orders"))
        async with log.pool.acquire() as connection:
            pid = int(await connection.fetchval("SELECT pg_backend_pid()"))
            for size in SIZES:
                await _compared(connection, pid, size)
        while await log.seal(1_000):
            pass
        await _sizes(log)
        await _verified(log)


async def _compared(connection: Connection, pid: int, size: int) -> None:
    events = min(_EVENTS, 100 * size)
    spent: dict[bool, list[Spent]] = {True: [], False: []}
    await _turn(connection, pid, size, events, True)
    for _ in range(_TURNS):
        for linked in (False, True):
            spent[linked].append(await _turn(connection, pid, size, events, linked))
    without, linked_ = _least(spent[False]), _least(spent[True])
    here, postgres = linked_.here - without.here, linked_.postgres - without.postgres
    told = (
        f"batches of {size}: {without.here + without.postgres:.1f} µs an event without a link, "
        f"and {here:+.2f} here and {postgres:+.2f} in Postgres with one"
    )
    if size > 1:
        shares = [f"{name} {(here + postgres) * count / of:.1%}" for name, (of, count) in SAGAS.items()]
        told += f"; of a saga: {', '.join(shares)}"
    console.print(told)


async def _turn(connection: Connection, pid: int, size: int, count: int, linked: bool) -> Spent:
    batches = [_batch(size) for _ in range(count // size)]
    gc.collect()
    here, there = time.process_time(), _processor_seconds(pid)
    for events in batches:
        at = SystemClock().now()
        proof = summed(leaves(events, at)) if linked else (None, None)
        streams = [(event.stream, 0) for event in events]
        await connection.fetchrow(_APPEND, at, streams, events, [], [], [], None, None, None, *proof)
    done = len(batches) * size
    return Spent((time.process_time() - here) / done * 1e6, (_processor_seconds(pid) - there) / done * 1e6)


def _batch(size: int) -> Sequence[NewEvent]:
    return [_event() for _ in range(size)]


def _event() -> NewEvent:
    id = str(RandomIds().uuid7())
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    created = OrderCreated(customer_id=str(RandomIds().uuid7()))
    metadata = Metadata(id, "rpc/CreateOrder", trace, "order_svc")
    return NewEvent.of(StreamId("order", id), 1, RandomIds().uuid7(), created, metadata, id)


def _processor_seconds(pid: int) -> float:
    """What a process has spent, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _least(spent: Sequence[Spent]) -> Spent:
    """What a busy machine added least to."""
    return Spent(min(each.here for each in spent), min(each.postgres for each in spent))


async def _sizes(log: PostgresLog) -> None:
    await log.pool.execute("VACUUM")
    row: Any = await log.pool.fetchrow(
        "SELECT count(*), sum(last_position + 1 - first_position), pg_total_relation_size('chain'),"
        " (SELECT pg_total_relation_size('events')), (SELECT count(*) FROM events) FROM chain"
    )
    links, covered, bytes, of_events, events = row
    console.print(
        f"{links:,} links for {covered:,} events: {bytes / links:.0f} bytes a link, {bytes / covered:.1f} an event, "
        f"beside the {of_events / events:.0f} of the event itself"
    )


async def _verified(log: PostgresLog) -> None:
    started, processor = time.monotonic(), time.process_time()
    chain, found = ChainAudit(log, None), Findings()
    await chain.verify(found)
    assert not found.kept
    checked = chain.checked["events"]
    took, used = time.monotonic() - started, time.process_time() - processor
    console.print(
        f"{checked:,} events verified: {checked / took:,.0f}/s ({used / checked * 1e6:.1f} µs each)"
    )


if __name__ == "__main__":
    asyncio.run(main())
