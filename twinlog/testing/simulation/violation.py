"""A broken promise."""

from __future__ import annotations


class Violation(Exception):
    """A promise that was broken: what, and the facts."""


def check(holds: bool, promise: str, facts: str) -> None:
    """Raises Violation where something does not hold; ``promise`` names it in a word or two."""
    if not holds:
        raise Violation(promise, facts)
