"""A module to be changed."""

from __future__ import annotations

_ONE = 1


def following(number: int) -> int:
    """The next number."""
    return number + _ONE
