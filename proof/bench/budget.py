"""Where the processor time of a saga goes: microseconds by process, from /proc.

Less noisy than any rate: on a machine that others use as well, a saga still costs what it costs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from proof.bench import measure
from proof.bench.systems import System

_TICK = 1e6 / os.sysconf("SC_CLK_TCK")


async def of_sagas(system: System, orders: int) -> tuple[measure.Rates, dict[str, float]]:
    """The rates of so many orders, and the processor microseconds that a saga cost in each process."""
    processes = {**system.pids, **system.servers}
    before = spent(processes)
    rates = await measure.rates(system, orders)
    after = spent(processes)
    return rates, {process: (after[process] - before[process]) / orders for process in processes}


def spent(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor microseconds that each process and its children have used so far."""
    fields = {int(path.parent.name): _stat(path) for path in Path("/proc").glob("[0-9]*/stat")}
    children: dict[int, list[int]] = {}
    for pid, stat in fields.items():
        if stat:
            children.setdefault(int(stat[1]), []).append(pid)
    return {
        name: sum(_used(fields.get(each, [])) for each in (pid, *children.get(pid, [])))
        for name, pid in pids.items()
    }


def _stat(path: Path) -> list[str]:
    """The fields of a stat file from the state on; none where the process has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _used(stat: list[str]) -> float:
    """User and system time; of a child that has ended, it is in its parent's third and fourth."""
    return sum(map(int, stat[11:15])) * _TICK
