"""Tests in their own process notice a mutant by failing, or by the processor time that they take."""

from __future__ import annotations

import ast

import pytest

from proof.mutants import fresh
from proof.mutants.mutations import Mutant
from proof.mutants.warm import ROOT

PATH = "tests/mutants/example.py"
TEST = "tests/mutants/test_example.py::test_the_number_that_follows"


@pytest.mark.parametrize(
    ("body", "is_noticed"),
    [("return number + _ONE", False), ("return number - _ONE", True), ("while True: pass", True)],
)
def test_what_fails_or_loops_endlessly_is_noticed(
    monkeypatch: pytest.MonkeyPatch, body: str, is_noticed: bool
) -> None:
    monkeypatch.setattr(fresh, "_START_SECONDS", -2)
    changed = (ROOT / PATH).read_text().replace("return number + _ONE", body)
    mutant = Mutant(PATH, 8, "by hand", ast.parse(changed))
    assert fresh.notices(mutant, [TEST], {TEST: 0.0}) is is_noticed
