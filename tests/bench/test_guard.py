"""What a saga may cost: counts, which a busy machine does not change."""

from __future__ import annotations

import pytest

from tests.bench.counting import BUDGET, MODES, count, recorded

MARGIN = 0.15


@pytest.mark.parametrize("mode", MODES)
async def test_a_saga_stays_within_its_budget(mode: str) -> None:
    spent, budget = await count(mode), recorded()[mode]
    assert spent.keys() == budget.keys()
    beyond = {
        what: f"{spent[what]:g}, not {budget[what]:g}"
        for what in budget
        if abs(spent[what] - budget[what]) > MARGIN * budget[what]
    }
    assert not beyond, (
        f"{mode} is more than {MARGIN:.0%} off its budget: {beyond}. More: find what it does besides "
        f"(make bench shows whether it matters). Less: well done. Where it is meant to be so, record it: "
        f"python -m tests.bench.counting writes {BUDGET.name}."
    )
