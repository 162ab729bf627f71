"""What runs of positions leave uncovered."""

from __future__ import annotations

from twinlog.log.chain import Covered


def test_what_is_missing_lies_between_the_two_positions_that_were_asked_for() -> None:
    covered = Covered()
    covered.add(1, 5)
    covered.add(20, 30)
    wanted = {
        (1, 5): [],
        (1, 8): [(6, 8)],
        (6, 8): [(6, 8)],  # and not up to the next run: those behind it may lack a link
        (10, 40): [(10, 19), (31, 40)],
        (3, 25): [(6, 19)],
        (22, 24): [],
        (31, 30): [],
    }
    assert {asked: [*covered.missing(*asked)] for asked in wanted} == wanted


def test_what_is_added_while_it_is_told_changes_nothing_of_what_is_told() -> None:
    covered = Covered()
    covered.add(5, 6)
    told = []
    for first, last in covered.missing(1, 10):
        told.append((first, last))
        covered.add(first, last)
    assert told == [(1, 4), (7, 10)]
    assert covered.runs == [(1, 10)]
