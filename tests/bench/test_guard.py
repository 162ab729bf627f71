"""What a saga may cost: counts, which are the same on every machine."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.bench.counting import BUDGET, MODES, Counts, count, recorded

CALLS_MARGIN, MARGIN = 0.03, 0.15
"""Round trips are a few whole numbers, of which one more batch is a tenth."""
_CALLS = "calls a saga, 200 together"
SHARE = 0.02
SAGAS_A_SCRAPE = 2_000
"""Those between two scrapes, 5 s apart, where 400 run a second: less than half of what two cores can do."""


@pytest.mark.parametrize("mode", MODES)
def test_a_saga_stays_within_its_budget(mode: str) -> None:
    beyond = off(count(mode), recorded()[mode])
    assert not beyond, (
        f"{mode} is off its budget, by more than {CALLS_MARGIN:.0%} of calls or {MARGIN:.0%} of others: {beyond}. "
        "More: find what it does besides (make bench shows whether it matters). Less: well done. Where it is meant to "
        f"be so, record it: python -m tests.bench.counting writes {BUDGET.name}."
    )


@pytest.mark.parametrize("mode", MODES)
def test_metrics_are_a_fiftieth_of_it(mode: str) -> None:
    budget = recorded()[mode]
    assert budget["calls of metrics a saga, 200 together"] <= SHARE * budget["calls a saga, 200 together"]


@pytest.mark.parametrize("mode", MODES)
def test_scrapes_are_a_hundredth_of_it(mode: str) -> None:
    budget = recorded()[mode]
    scrape = budget["calls of a scrape of all services"] / SAGAS_A_SCRAPE
    assert scrape <= SHARE / 2 * budget["calls a saga, 200 together"]


def off(spent: Counts, budget: Counts) -> Mapping[str, str]:
    """What is not as it was."""
    assert spent.keys() == budget.keys()
    return {
        what: f"{spent[what]:g}, not {budget[what]:g}"
        for what in budget
        if abs(spent[what] - budget[what]) > (CALLS_MARGIN if what == _CALLS else MARGIN) * budget[what]
    }
