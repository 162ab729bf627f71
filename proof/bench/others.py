"""The rivals, each beside the baseline and the shop of the same minute, and the kernel by its parts."""

from __future__ import annotations

import sys

from proof.bench import apart, kernel, measure
from proof.bench.report import Row
from proof.bench.rounds import BASELINE
from proof.bench.systems import System
from stack.shop import Shop
from stack.topology import ROOT
from twinlog.testing.internals import ensure_database

_RIVALS = {"pyeventsourcing": 600, "dbos_saga": 300}
"""Module, and orders: some seconds' worth."""
_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
_BETTER_THAN_PYEVENTSOURCING = 8


async def rivals(shop: Shop, systems: list[System], rounds: int, orders: int) -> tuple[list[Row], list[str]]:
    """Their rows, and why some are missing. ``orders``: of the baseline and of the shop, each round."""
    baseline, choreography, _ = systems
    rows: dict[str, Row] = {}
    against: dict[str, Row] = {}
    missing: list[str] = []
    for _ in range(rounds):
        for module, count in _RIVALS.items():
            base, ours = await measure.rates(baseline, orders), await measure.rates(choreography, orders)
            try:
                found = await _rival(shop, module, count)
            except (apart.Failed, OSError) as error:
                missing.append(f"{module} was not measured: {error}")
                continue
            for row in found:
                whole = base.sagas if row.unit == "sagas/s" else base.accepted
                rows.setdefault(row.what, Row(row.what, row.unit, BASELINE)).add(row.value, whole)
            name = found[0].what.partition(":")[0]
            row = Row(f"choreography: sagas beside {name}", "sagas/s", name)
            against.setdefault(module, row).add(ours.sagas, found[0].value)
    if "pyeventsourcing" in against:
        against["pyeventsourcing"].aim(ratio=_BETTER_THAN_PYEVENTSOURCING)
    return [*rows.values(), *against.values()], missing


async def _rival(shop: Shop, module: str, orders: int) -> list[Row]:
    database = f"bench_{module}"
    await ensure_database(shop.postgres_url, database)
    command = [str(_PYTHON), "-m", f"proof.bench.rivals.{module}", database, str(orders)]
    return await apart.rows(command, {"POSTGRES_URL": shop.postgres_url})


async def kernels(shop: Shop, *, quick: bool) -> tuple[list[Row], list[str]]:
    """The kernel's own rows, and the projector's beside the bare cursor's; and why there are none, if so."""
    env = {"POSTGRES_URL": shop.postgres_url, "NATS_URL": shop.nats_url}
    options = [kernel.QUICK] if quick else []
    try:
        parts = await apart.rows([sys.executable, "-m", "proof.bench.kernel", *options], env)
        (caught_up,) = await apart.rows([sys.executable, "-m", "proof.bench.catch_up"], env)
    except apart.Failed as error:
        return [], [f"The kernel was not measured: {error}."]
    (cursor,) = (row for row in parts if row.what == kernel.CURSOR)
    caught_up.base, caught_up.ratios = "the cursor alone", [caught_up.value / cursor.value]
    return [*parts, caught_up], []
