"""What the mutants of the example meet."""

from __future__ import annotations

from tests.mutants.example import following


def test_the_number_that_follows() -> None:
    assert following(3) == 4
