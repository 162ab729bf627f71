"""The mutants that are written down are of today's code, and a mutant takes effect where its module is imported."""

from __future__ import annotations

import ast
import re
from functools import cache
from types import FunctionType

import pytest

from proof.mutants.__main__ import aimed, reasons
from proof.mutants.functions import replace
from proof.mutants.mutations import count, mutant, places, replaced
from proof.mutants.warm import ROOT
from tests.mutants import example

_places = cache(lambda path: places(path, (ROOT / path).read_text()))
FILE = str(ROOT / "tests/mutants/example.py")


def test_each_survivor_stands_for_a_line_that_is_there_still() -> None:
    stale = [name for name in reasons() if name.partition(" → ")[0] not in _places(name.partition(" ")[0])]
    assert not stale


def test_each_survivor_has_its_reason_and_the_tests_that_it_names_exist() -> None:
    for name, reason in reasons().items():
        assert len(reason) > 20, name
        for test in re.findall(r"tests/[\w/.]*\w", reason):
            assert (ROOT / test).exists(), name


def test_each_mutant_by_hand_fits_its_code() -> None:
    sources = {path: (ROOT / path).read_text() for path in {each["path"] for each in aimed()}}
    for each in aimed():
        assert replaced(each["path"], sources[each["path"]], each["old"], each["new"])
    names = [each["breaks"] for each in aimed()]
    assert len({*names}) == len(names) > 0


@pytest.mark.parametrize(
    ("changed", "is_function"),
    [("return number + _ONE → return number - _ONE", True), ("_ONE = 1 → _ONE = 2", False)],
)
def test_a_function_is_changed_where_it_is_and_what_is_made_once_is_not(
    changed: str, is_function: bool
) -> None:
    source = (ROOT / "tests/mutants/example.py").read_text()
    every = [mutant("example.py", source, number) for number in range(1, count(source) + 1)]
    [chosen] = [each for each in every if each.name.endswith(changed)]
    following = example.following
    assert isinstance(following, FunctionType)
    sound, known = ast.parse(source), {(FILE, "following", 8): [following]}
    try:
        assert replace(known, FILE, sound, chosen.tree) is is_function
        assert example.following(3) == (2 if is_function else 4)
    finally:
        replace(known, FILE, chosen.tree, sound)
    assert example.following(3) == 4
