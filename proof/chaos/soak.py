"""``python -m proof.chaos.soak``: constant load for a long time, and what grows under it, with the reason."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence

# Before gRPC is imported, which would comment on every process that this one starts.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from proof.auditor import audit
from proof.chaos import rig
from proof.chaos.census import Census, take
from proof.chaos.load import Clients, Load
from proof.chaos.rig import Layout
from stack.topology import NAMES
from twinlog.testing.internals import configure_logging

_LOOK_EVERY_SECONDS = 60.0
_SETTLE_SECONDS = 60.0
_WHY = {
    "order_svc": "states of up to 20,000 orders are kept; then the oldest go",
    "customer_svc": "states of up to 20,000 customers are kept; each has an entry for its orders of two or three weeks",
    "saga_orchestrator": "states of up to 20,000 sagas are kept; then the oldest go",
    "projector": "20,000 rows of each view are kept; then the oldest go",
    "postgres": "shared buffers, up to 128 MB, fill up",
    "nats": "caches of stream blocks, which the server drops by itself",
    "events": "the history: every event, until it is archived",
    "requests": "one row a request_id, kept for KEEP_REQUESTS_DAYS",
    "timeline": "one row an event of an order's saga: what GetOrderTimeline shows",
    "chain": "one row a batch of events: each link proves those before it",
    "view_changes": "what changed in views, kept for an hour: watches resume from it",
    "timers": "a row for each stream that waits; freed ones are used again",
    "snapshots": "the newest, and one at each 1,000th version, of streams of a hundred events and more",
    "orders": "one row an order",
    "customers": "one row a customer",
    "sagas": "one row a saga",
    "leases": "a row each, updated: dead versions until vacuum",
    "checkpoints": "a row each, updated: dead versions until vacuum",
}
_SMALLEST = 0.05
"""Megabytes of growth that are worth a line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: what is there at the end is right; 1: the auditor found something."""
    parser = argparse.ArgumentParser(prog="python -m proof.chaos.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second, about (60)")
    parser.add_argument("--seed", default="soak", help="what the load is chosen by")
    options = parser.parse_args(arguments)
    configure_logging("error")
    try:
        return asyncio.run(_soak(options.minutes * 60, options.rate, options.seed))
    except KeyboardInterrupt:
        return 130


async def _soak(seconds: float, rate: float, seed: str) -> int:
    async with rig.running(Layout()) as shop:
        addresses = {service: shop.addresses(service) for service in NAMES}
        async with Clients(addresses) as clients:
            load = Load(clients, seed, rate=rate)
            await load.prepare()
            first = await take(shop)
            print("\n".join(_everything(first)), flush=True)
            requests = 0
            async with load.running():
                loop = asyncio.get_running_loop()
                started = loop.time()
                while (passed := loop.time() - started) < seconds:
                    await asyncio.sleep(min(_LOOK_EVERY_SECONDS, seconds - passed))
                    requests += load.forget()
                    print(_line(loop.time() - started, requests, await take(shop)), flush=True)
            unresolved = await load.resolve()
            requests += load.forget()
            report = await audit(shop.postgres.url, shop.nats_url, wait_seconds=_SETTLE_SECONDS)
            print("\n".join(_growth(first, await take(shop), requests)), flush=True)
    print(f"\n{requests:,} requests, {unresolved} without an outcome, {len(report.violations)} violations")
    print("\n".join(f"  {found.check}: {found.says}" for found in report.violations))
    return 0 if report.clean and not unresolved else 1


def _everything(census: Census) -> Iterator[str]:
    yield "at the start"
    for name, process in census.processes.items():
        yield f"  {name:<20} {process.megabytes:7.1f} MB {process.sockets:>4} sockets"
    tables, streams = sum(census.tables.values()), sum(census.streams.values())
    yield f"  tables {tables:.1f} MB, streams {streams:.1f} MB, {census.connections} connections to Postgres"
    yield ""
    yield "memory in MB    " + " ".join(f"{name[:12]:>12}" for name in census.processes)


def _line(passed: float, requests: int, census: Census) -> str:
    memory = " ".join(f"{process.megabytes:>12.1f}" for process in census.processes.values())
    return f"{passed / 60:4.1f} min {requests:>7,} {memory}"


def _growth(first: Census, last: Census, requests: int) -> Iterator[str]:
    thousands = max(requests, 1) / 1000
    yield ""
    yield f"{'':<26} {'start':>8} {'end':>8} {'a 1,000 requests':>17}"
    for name, process in last.processes.items():
        before = first.processes[name]
        yield _row(name, before.megabytes, process.megabytes, thousands, _WHY.get(name, ""))
        if process.sockets != before.sockets:
            yield f"  {name}: {before.sockets} sockets at the start, {process.sockets} at the end"
    for name, size in last.tables.items():
        if size - first.tables.get(name, 0.0) > _SMALLEST:
            why = _WHY.get(name.partition(".")[2], "")
            yield _row(name, first.tables.get(name, 0.0), size, thousands, why)
    for name, size in last.streams.items():
        yield _row(
            f"stream {name}",
            first.streams[name],
            size,
            thousands,
            "the log's twin: every event, until it is trimmed",
        )
    yield f"connections to Postgres: {first.connections} at the start, {last.connections} at the end"


def _row(name: str, start: float, end: float, thousands: float, why: str) -> str:
    row = f"{name:<26} {start:>5.1f} MB {end:>5.1f} MB {(end - start) / thousands:>14.3f} MB"
    return f"{row}\n    {why}" if why else row


if __name__ == "__main__":
    sys.exit(main())
