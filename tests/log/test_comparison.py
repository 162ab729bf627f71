"""What a comparison of two builds of a view comes to."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from twinlog.log.view_builds import Comparison


def test_each_difference_has_to_be_confirmed_whatever_others_there_are() -> None:
    same = Comparison(compared=4, changed=0, missing=0, added=0, unsettled=0, examples=())
    assert not same.differs
    kinds = ("changed", "missing", "added", "unsettled")
    for several in (*combinations(kinds, 1), *combinations(kinds, 2)):
        counts: dict[str, Any] = dict.fromkeys(several, 1)
        assert same._replace(**counts).differs, several
    assert same._replace(columns_added=["paid"]).differs
    assert same._replace(columns_gone=["paid"]).differs
