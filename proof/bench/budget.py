"""Where the processor time of a saga goes: microseconds by process.

This is less noisy than any rate, because a saga costs the same on a machine that others use as well.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import psutil

from proof.bench import measure
from proof.bench.systems import System

_HAS_CLOCKS = sys.platform == "linux"
"""Whether each process has a clock of its processor time, whose number is made of its id (clock_getcpuclockid)."""


async def of_sagas(system: System, orders: int) -> tuple[measure.Rates, dict[str, float]]:
    """The rates of so many orders, and the processor microseconds that a saga cost in each process."""
    processes = {**system.pids, **system.servers}
    before = spent(processes)
    rates = await measure.rates(system, orders)
    after = spent(processes)
    return rates, {process: (after[process] - before[process]) / orders for process in processes}


def spent(pids: Mapping[str, int]) -> dict[str, float]:
    """Processor microseconds that each process and its children, ended ones included, have used so far."""
    return {name: 1e6 * sum(map(_seconds, _family(pid))) for name, pid in pids.items()}


def spent_by(system: System) -> float:
    """The same of all of a system's processes and of its servers together."""
    return sum(spent({**system.pids, **system.servers}).values())


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children()]


def _seconds(process: psutil.Process) -> float:
    """User and system time; that of a child that has ended is in its parent's."""
    try:
        times = process.cpu_times()
        # In nanoseconds, where /proc rounds each of a dozen processes down to 10 ms.
        own = time.clock_gettime(~process.pid << 3 | 2) if _HAS_CLOCKS else times.user + times.system
    except (psutil.NoSuchProcess, OSError):
        return 0.0
    return float(own + times.children_user + times.children_system)
