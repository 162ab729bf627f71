"""How much memory the processes hold, and how flat that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import psutil

from proof.bench.report import Row
from proof.bench.systems import System
from stack.topology import CUSTOMER_SVC, ORDER_SVC, PROJECTOR, SAGA_ORCHESTRATOR

_ROLES = {
    ORDER_SVC.name: "baseline orders",
    CUSTOMER_SVC.name: "baseline customers",
    SAGA_ORCHESTRATOR.name: "baseline customers",
    PROJECTOR.name: "baseline view",
}
"""The baseline's process in each service's role. The orchestrator, like customers, follows a log and writes one."""
_MB = 2**20


def resident(systems: Sequence[System]) -> dict[str, int]:
    """Resident bytes of every process."""
    return {
        name: psutil.Process(pid).memory_info().rss for system in systems for name, pid in system.pids.items()
    }


def sizes(before: Mapping[str, int], after: Mapping[str, int]) -> list[Row]:
    """Every process beside the baseline's of its role."""
    rows = []
    for name, size in after.items():
        role = _ROLES.get(name, name)
        row = Row(f"{name}: RSS after the run (from {before[name] / _MB:.0f} MB)", "MB", role)
        row.add(size / _MB, after[role] / _MB)
        rows.append(row.aim(value=150, most=True) if name in _ROLES else row)
    return rows


def growth(before: Mapping[str, int], after: Mapping[str, int], sagas: int) -> list[Row]:
    """Every process beside itself before so many sagas; a tenth more is taken for flat."""
    rows = []
    for name, size in after.items():
        row = Row(f"{name}: RSS after {sagas:,} more sagas", "MB", "before them")
        row.add(size / _MB, before[name] / _MB)
        rows.append(row.aim(ratio=1.1, most=True) if name in _ROLES else row)
    return rows
