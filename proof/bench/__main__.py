"""Runs the bench: ``python -m proof.bench [--quick] [--sizes [--million]]``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path

from proof.bench import files, measure, memory, opinion, others, plot, reads, report, rounds, storage
from proof.bench import sizes as grown
from proof.bench.report import Row, Sections
from proof.bench.systems import started
from stack.topology import ROOT

_NOTE = (
    "Medians of rounds that take turns (baseline, choreography, orchestration, baseline, …); a ratio is the median of "
    "those within one round, all of one run. 256 clients in a closed loop, 100 customers, every order with a request "
    "id, except where another generator asks, which repeats one call. Latency runs from when CreateOrder was due until "
    "APPROVED was committed in the view; at half load the calls come at a fixed rate whatever happens. Where the "
    "baseline misses a latency target too, the machine was too busy to judge it."
)

_RIVALS_NOTE = (
    "pyeventsourcing runs in its multi-threaded system runner, aggregates cached, 2 or 8 client threads, whichever is "
    "faster; DBOS as one workflow of three transactions, 8 client threads. Both run in one process on the same "
    "Postgres and are called within it: no RPC, no request ids, no broker, which the baseline and the shop do pay for."
)

_KERNEL_NOTE = (
    "The kernel's parts stand beside the same servers without it, turn by turn in one process: a bare INSERT of the "
    "same columns into a table without an index, a bare SELECT of the same rows, bare messages of the same size that "
    "are only fenced, a bare pull that counts messages and decodes none."
)


@dataclass(frozen=True)
class Size:
    """How long it takes."""

    rounds: int
    rates: int
    """Rounds of rates, which vary most from one to the next."""
    orders: int
    """In each measurement of a rate."""
    alone: int
    """Orders of the one client."""
    seconds: float
    """At half load."""
    small: int
    large: int
    """Orders in the log, where cost is measured against that."""
    results: Path
    """The folder to write to."""


_FULL = Size(
    rounds=3,
    rates=7,
    orders=4_000,
    alone=150,
    seconds=8,
    small=10_000,
    large=100_000,
    results=ROOT / "docs" / "bench",
)
_MILLION = 1_000_000
_QUICK = Size(
    rounds=1,
    rates=1,
    orders=1_000,
    alone=50,
    seconds=3,
    small=2_000,
    large=10_000,
    results=ROOT / ".data" / "bench-quick",
)


async def compare(size: Size) -> None:
    """Measures everything but cost against size."""
    async with started(ROOT / ".data" / "bench") as (shop, systems):
        before = memory.resident(systems)
        for system in systems:
            await measure.rates(system, size.orders // 5)
        sagas, accepted, cost = await rounds.rates(systems, size.rates, size.orders)
        most = {system.name: row.value for system, row in zip(systems, sagas, strict=True)}
        accepted += await opinion.rows(systems, size.rounds, size.orders)
        latency = await rounds.latencies(systems, size.rounds, size.alone, size.seconds, most)
        after = memory.resident(systems)
        kept = await storage.rows(shop, systems, size.orders)
        print("reads", flush=True)
        asked = await reads.rows(shop, reads.QUICK if size is _QUICK else reads.FULL)
        print("rivals", flush=True)
        rivals, missing = await others.rivals(shop, systems, size.rounds, size.orders)
        print("kernel", flush=True)
        kernel, unknown = await others.kernels(shop, quick=size is _QUICK)
        print("files", flush=True)
        filed, unfiled = await files.rows()
    sections = {
        "Sagas, end to end into the view": sagas,
        "CreateOrder, accepted": accepted,
        "Latency": latency,
        "Processor time": cost,
        reads.TITLE: asked,
        "What a user would pick instead": rivals,
        "The kernel by its parts": kernel,
        files.TITLE: filed,
        "Memory": memory.sizes(before, after),
        "Bytes kept": kept,
    }
    notes = [_NOTE, storage.NOTE, reads.NOTE, _RIVALS_NOTE, _KERNEL_NOTE, *missing, *unknown, *unfiled]
    _write(size, "results", {title: rows for title, rows in sections.items() if rows}, notes)


async def grow(size: Size, million: bool) -> None:
    """Measures cost against size."""
    async with started(ROOT / ".data" / "bench") as (shop, systems):
        growing = grown.Sizes(shop, systems, size.orders // 2, size.rounds)
        orders = await growing.log(size.small)
        await growing.fill(size.large // 2)
        before = memory.resident(systems)
        orders += await growing.log(size.large)
        await growing.fill(size.large // 2 + size.large)
        after = memory.resident(systems)
        sections: dict[str, list[Row]] = {
            "Orders in the log": orders,
            "Memory": [*memory.sizes(before, after), *memory.growth(before, after, size.large)],
            "Customers": await growing.customers(),
            "Replicas": await growing.replicas(),
        }
        if million:
            orders += await growing.log(_MILLION)
    _write(size, "sizes", sections, [grown.NOTE])


def _write(size: Size, name: str, sections: Sections, notes: list[str]) -> None:
    print(report.write(size.results, name, sections, notes))
    plot.draw(size.results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round of everything, kept out of docs/bench"
    )
    parser.add_argument("--sizes", action="store_true", help="cost against size, instead")
    parser.add_argument("--million", action="store_true", help="with --sizes: also a million orders")
    chosen = parser.parse_args()
    size = _QUICK if chosen.quick else _FULL
    try:
        asyncio.run(grow(size, chosen.million) if chosen.sizes else compare(size))
    except KeyboardInterrupt:
        sys.exit(130)
