"""What runs besides: the rivals, each beside the floor and the shop of the same minute, and the kernel by its parts."""

from __future__ import annotations

import sys

from bench import apart, kernel, measure
from bench.report import Row
from bench.systems import System
from stack.shop import Shop
from stack.supervisor import ROOT
from twinlog.migrations import ensure_database

_RIVALS = {"pyeventsourcing": 600, "dbos_saga": 300}
"""Module, and orders: some seconds' worth."""
_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
_BETTER_THAN_PYEVENTSOURCING = 8


async def rivals(shop: Shop, systems: list[System], rounds: int, orders: int) -> tuple[list[Row], list[str]]:
    """Their rows, and why some are missing. ``orders``: of the floor and of the shop, each round."""
    floor, choreography, _ = systems
    rows: dict[str, Row] = {}
    against = Row("choreography: sagas against pyeventsourcing's", "×")
    missing: list[str] = []
    for _ in range(rounds):
        for module, count in _RIVALS.items():
            base, ours = await measure.rates(floor, orders), await measure.rates(choreography, orders)
            try:
                found = await _rival(shop, module, count)
            except (apart.Failed, OSError) as error:
                missing.append(f"{module} was not measured: {error}")
                continue
            for row in found:
                whole = base.sagas if row.unit == "sagas/s" else base.accepted
                kept = rows.setdefault(row.what, Row(row.what, row.unit))
                kept.values.append(row.value)
                kept.ratios.append(row.value / whole)
            if module == "pyeventsourcing":
                against.values.append(ours.sagas / found[0].value)
    if against.values:
        rows[against.what] = against.aim(value=_BETTER_THAN_PYEVENTSOURCING)
    return [*rows.values()], missing


async def _rival(shop: Shop, module: str, orders: int) -> list[Row]:
    database = f"bench_{module}"
    await ensure_database(shop.postgres_url, database)
    command = [str(_PYTHON), "-m", f"bench.rivals.{module}", shop.postgres_url, database, str(orders)]
    return await apart.rows(command, {})


async def kernels(shop: Shop, *, quick: bool) -> list[Row]:
    """The kernel's own rows, and the projector's."""
    env = {"POSTGRES_URL": shop.postgres_url, "NATS_URL": shop.nats_url}
    options = [kernel.QUICK] if quick else []
    parts = await apart.rows([sys.executable, "-m", "bench.kernel", *options], env)
    return parts + await apart.rows([sys.executable, "-m", "bench.catch_up"], env)
