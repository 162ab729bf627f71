"""The baseline and the shop in either mode, in rounds that take turns: rates, what a saga costs, latencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proof.bench import budget, measure
from proof.bench.report import Row
from proof.bench.systems import System

BASELINE = "the baseline"
_WHOLE = "a saga of the baseline"


class BesideBaseline:
    """One row a system, each set against the baseline's value of the same round."""

    def __init__(self, systems: Sequence[System], what: str, unit: str) -> None:
        """``what``: with {} for the system's name. The baseline is the first of the systems, and of every round."""
        self._rows = {system.name: Row(what.format(system.name), unit, BASELINE) for system in systems}
        self._baseline = systems[0].name

    def __getitem__(self, name: str) -> Row:
        return self._rows[name]

    @property
    def rows(self) -> list[Row]:
        return list(self._rows.values())

    def add(self, system: System, value: float) -> None:
        """The value of a round."""
        self[system.name].add(
            value, value if system.name == self._baseline else self[self._baseline].values[-1]
        )


async def rates(
    systems: Sequence[System], rounds: int, orders: int
) -> tuple[list[Row], list[Row], list[Row]]:
    """Sagas and calls a second, and the processor time of a saga. ``orders``: in each measurement."""
    sagas = BesideBaseline(systems, "{}: sagas end to end", "sagas/s")
    accepted = BesideBaseline(systems, "{}: CreateOrder accepted", "calls/s")
    cost = BesideBaseline(systems, "{}: processor time a saga, all processes", "µs")
    generator = Row("load generator: processor time a call", "µs", _WHOLE)
    parts: dict[str, Row] = {}
    for _ in range(rounds):
        for system in systems:
            found, spent = await budget.of_sagas(system, orders)
            sagas.add(system, found.sagas)
            accepted.add(system, found.accepted)
            cost.add(system, sum(spent.values()))
            whole = cost[systems[0].name].values[-1]
            for process, micros in spent.items():
                row = Row(f"{system.name}: of it in {process}", "µs", _WHOLE)
                parts.setdefault(row.what, row).add(micros, whole)
            generator.add(found.generator * 1e6, whole)
            print(f"{system.name}: {found.sagas:,.0f} sagas/s, {found.accepted:,.0f} calls/s", flush=True)
    for mode, least in (("choreography", 0.6), ("orchestration", 0.4)):
        sagas[mode].aim(ratio=least)
        accepted[mode].aim(ratio=0.75)
    return sagas.rows, accepted.rows, [*cost.rows, *parts.values(), generator]


async def latencies(
    systems: Sequence[System], rounds: int, alone: int, seconds: float, most: Mapping[str, float]
) -> list[Row]:
    """``alone``: orders of the one client. ``seconds``: at half of ``most``, the sagas a second of each system."""
    one50, one99, half50, half99 = tables = [
        BesideBaseline(systems, f"{{}}: {what}", "ms")
        for what in ("one client, p50", "one client, p99", "half load, p50", "half load, p99")
    ]
    for _ in range(rounds):
        for system in systems:
            took = await measure.one_client(system, alone)
            one50.add(system, took.p50 * 1e3)
            one99.add(system, took.p99 * 1e3)
            print(f"{system.name}: one client {took.p50 * 1e3:.1f} ms", flush=True)
    for _ in range(rounds):
        for system in systems:
            took = await measure.at_rate(system, most[system.name] / 2, seconds)
            half50.add(system, took.p50 * 1e3)
            half99.add(system, took.p99 * 1e3)
            print(f"{system.name}: half load p99 {took.p99 * 1e3:.1f} ms", flush=True)
    for mode in ("choreography", "orchestration"):
        one50[mode].aim(ratio=2, most=True)
        half99[mode].aim(value=100, most=True)
    return [row for table in tables for row in table.rows]
