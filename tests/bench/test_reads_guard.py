"""What a read may cost: counts of calls and of statements, no times."""

from __future__ import annotations

import pytest

from tests.bench.reading import BUDGET, TRIES, count, least, reads, recorded

MARGIN = 0.03
"""Of calls: rows that come in two pieces, or a timer that fires meanwhile, are a few in a thousand."""


async def test_a_read_stays_within_its_budget(postgres_url: str, database: str) -> None:
    budget = recorded()
    async with reads(postgres_url, database) as found:
        assert found.keys() == budget.keys()
        spent = {name: least(*[await count(read) for _ in range(TRIES)]) for name, read in found.items()}
    off = {
        f"{name}: {what}": f"{spent[name][what]:g}, not {known:g}"
        for name, counts in budget.items()
        for what, known in counts.items()
        if abs(spent[name][what] - known) > MARGIN * known
    }
    if off:
        pytest.fail(
            f"off the budget by more than {MARGIN:.0%}: {off}. More: find what it does besides. Less: well done. Where "
            f"it is meant to be so, record it: python -m tests.bench.reading writes {BUDGET.name}."
        )
