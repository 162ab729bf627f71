"""Runs the bench: ``python -m bench [--quick] [--sizes [--million]]``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import budget, h2load, measure, others, plot, report, sizes
from bench.report import Row, Sections
from bench.systems import System, started
from stack.supervisor import ROOT

_NOTE = (
    "Medians of rounds that take turns (floor, choreography, orchestration, floor, …), ratios within one round. "
    "256 clients in a closed loop, 100 customers, every order with a request id. Latency runs from when CreateOrder "
    "was due until APPROVED was committed in the view; at half load the calls come at a fixed rate whatever happens. "
    "Where the floor is above a latency target as well, the machine was not free enough to judge it."
)

_RIVALS_NOTE = (
    "pyeventsourcing runs in its multi-threaded system runner, aggregates cached, 2 or 8 client threads, whichever is "
    "faster; DBOS as one workflow of three transactions, 8 client threads. Both run in one process on the same "
    "Postgres and are called within it: no RPC, no request ids, no broker, which the floor and the shop do pay for."
)


@dataclass(frozen=True)
class Size:
    """How long it takes."""

    rounds: int
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
    rounds=3, orders=4_000, alone=150, seconds=8, small=10_000, large=100_000, results=ROOT / "docs" / "bench"
)
_MILLION = 1_000_000
_QUICK = Size(
    rounds=1,
    orders=1_000,
    alone=50,
    seconds=3,
    small=2_000,
    large=10_000,
    results=ROOT / ".data" / "bench-quick",
)


async def shop_rows(systems: list[System], size: Size) -> dict[str, list[Row]]:
    """The floor and the shop in both modes."""
    for system in systems:
        await measure.rates(system, size.orders // 5)
    sagas, accepted, cost = await _rates(systems, size)
    most = dict(zip((system.name for system in systems), (row.value for row in sagas), strict=True))
    return {
        "Sagas, end to end into the view": sagas,
        "CreateOrder, accepted": accepted + await h2load.rows(systems[:2], size.orders),
        "Latency": await _latencies(systems, size, most),
        "Processor time": cost,
    }


async def _rates(systems: list[System], size: Size) -> tuple[list[Row], list[Row], list[Row]]:
    """Sagas and calls a second, and what a saga costs."""
    sagas = {s.name: Row(f"{s.name}: sagas end to end", "sagas/s") for s in systems}
    accepted = {s.name: Row(f"{s.name}: CreateOrder accepted", "calls/s") for s in systems}
    generator = Row("load generator: processor time a call", "µs")
    cost = {s.name: Row(f"{s.name}: processor time a saga, all processes", "µs") for s in systems}
    parts: dict[str, Row] = {}
    for _ in range(size.rounds):
        for system in systems:
            rates, spent = await _budgeted(system, size.orders)
            _add(cost, system, sum(spent.values()))
            for process, micros in spent.items():
                row = Row(f"{system.name}: of it in {process}", "µs")
                parts.setdefault(row.what, row).values.append(micros)
            _add(sagas, system, rates.sagas)
            _add(accepted, system, rates.accepted)
            generator.values.append(rates.generator * 1e6)
            _say(f"{system.name}: {rates.sagas:,.0f} sagas/s, {rates.accepted:,.0f} calls/s")
    sagas["choreography"].aim(ratio=0.6)
    sagas["orchestration"].aim(ratio=0.4)
    accepted["choreography"].aim(ratio=0.75)
    accepted["orchestration"].aim(ratio=0.75)
    return [*sagas.values()], [*accepted.values()], [*cost.values(), *parts.values(), generator]


async def _budgeted(system: System, orders: int) -> tuple[measure.Rates, dict[str, float]]:
    """The rates, and the processor microseconds that a saga cost in each process."""
    processes = {**system.pids, **system.servers}
    before = budget.spent(processes)
    rates = await measure.rates(system, orders)
    after = budget.spent(processes)
    return rates, {process: (after[process] - before[process]) / orders for process in processes}


async def _latencies(systems: list[System], size: Size, most: Mapping[str, float]) -> list[Row]:
    """``most``: the sagas a second that each can do."""
    rows: dict[str, dict[str, Row]] = {
        what: {system.name: Row(f"{system.name}: {what}", "ms") for system in systems}
        for what in ("one client, p50", "one client, p99", "half load, p50", "half load, p99")
    }
    for _ in range(size.rounds):
        for system in systems:
            alone = await measure.one_client(system, size.alone)
            _add(rows["one client, p50"], system, alone.p50 * 1e3)
            _add(rows["one client, p99"], system, alone.p99 * 1e3)
            _say(f"{system.name}: one client {alone.p50 * 1e3:.1f} ms")
    for _ in range(size.rounds):
        for system in systems:
            loaded = await measure.at_rate(system, most[system.name] / 2, size.seconds)
            _add(rows["half load, p50"], system, loaded.p50 * 1e3)
            _add(rows["half load, p99"], system, loaded.p99 * 1e3)
            _say(f"{system.name}: half load p99 {loaded.p99 * 1e3:.1f} ms")
    for mode in ("choreography", "orchestration"):
        rows["one client, p50"][mode].aim(ratio=2, most=True)
        rows["half load, p99"][mode].aim(value=100, most=True)
    return [row for table in rows.values() for row in table.values()]


def _add(rows: dict[str, Row], system: System, value: float) -> None:
    rows[system.name].values.append(value)
    rows[system.name].ratios.append(value / rows["floor"].values[-1])


def _memory(systems: list[System], before: dict[str, int]) -> list[Row]:
    after = resident(systems)
    rows = []
    for service, size in after.items():
        row = Row(
            f"{service}: RSS after the run (from {before[service] / 2**20:.0f} MB)", "MB", [size / 2**20]
        )
        rows.append(row if service.startswith("floor") else row.aim(value=150, most=True))
    return rows


def _growth(systems: list[System], before: dict[str, int]) -> list[Row]:
    """How flat memory is: a tenth more is taken for flat."""
    after = resident(systems)
    rows = [Row(f"{name}: RSS growth", "%", [(after[name] / before[name] - 1) * 100]) for name in after]
    return [row if row.what.startswith("floor") else row.aim(value=10, most=True) for row in rows]


def resident(systems: list[System]) -> dict[str, int]:
    """Resident bytes of every process."""
    return {name: measure.memory(pid) for system in systems for name, pid in system.pids.items()}


async def compare(size: Size) -> None:
    """Everything but cost against size."""
    async with started(ROOT / ".data" / "bench") as (shop, systems):
        before = resident(systems)
        sections = await shop_rows(systems, size)
        memory = _memory(systems, before)
        _say("rivals")
        rivals, missing = await others.rivals(shop, systems, size.rounds, size.orders)
        _say("kernel")
        kernel = await others.kernels(shop, quick=size is _QUICK)
    sections |= {
        "What a user would pick instead": rivals,
        "The kernel by its parts": kernel,
        "Memory": memory,
    }
    _write(size, "results", sections, [_NOTE, _RIVALS_NOTE, *missing])


async def grow(size: Size, million: bool) -> None:
    """Cost against size."""
    async with started(ROOT / ".data" / "bench") as (shop, systems):
        growing = sizes.Sizes(shop, systems, size.orders // 2, size.rounds)
        small = await growing.log(size.small)
        before = resident(systems)
        sections: dict[str, list[Row]] = {
            "Customers": await growing.customers(),
            "Replicas": await growing.replicas(),
            "Orders in the log": small + await growing.log(size.large),
            "Memory": [*_memory(systems, before), *_growth(systems, before)],
        }
        if million:
            sections["Orders in the log"] = [*sections["Orders in the log"], *await growing.log(_MILLION)]
    _write(size, "sizes", sections, [sizes.NOTE])


def _write(size: Size, name: str, sections: Sections, notes: list[str]) -> None:
    print(report.write(size.results, name, sections, notes))
    plot.draw(size.results)


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="one short round of everything, kept out of docs/bench"
    )
    parser.add_argument("--sizes", action="store_true", help="cost against size, instead")
    parser.add_argument("--million", action="store_true", help="with --sizes: also a million orders")
    chosen = parser.parse_args()
    size = _QUICK if chosen.quick else _FULL
    asyncio.run(grow(size, chosen.million) if chosen.sizes else compare(size))
