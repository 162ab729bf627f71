"""The page "time-travel.md" of the how-tos: its Python runs, and says what it is said to."""

from __future__ import annotations

import re
from typing import Any

from customer_svc.domain import CUSTOMER
from stack.topology import ROOT
from twinlog import Aggregate

PAGE = ROOT / "docs" / "how-to" / "time-travel.md"


def test_an_aggregate_says_what_is_kept_of_it() -> None:
    [block] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    exec(block, made)
    assert (made["CUSTOMER"].name, made["CUSTOMER"].keep_every) == (CUSTOMER.name, CUSTOMER.keep_every)
    assert f"The shop's customers have long streams, and say {CUSTOMER.keep_every}." in PAGE.read_text()
    assert Aggregate.keep_every == 1_000
    assert f"{CUSTOMER.keep_bytes // 2**20} MiB by default" in PAGE.read_text()
