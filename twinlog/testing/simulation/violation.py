"""A broken promise."""

from __future__ import annotations

import traceback


class Violation(Exception):
    """A promise that was broken: what, and the facts."""


def check(holds: bool, promise: str, facts: str) -> None:
    """Raises Violation where something does not hold; ``promise`` names it in a word or two."""
    if not holds:
        raise Violation(promise, facts)


def broken(error: Exception) -> tuple[str, str]:
    """The promise that an error breaks, and the facts: an assertion of the invariants, or that nothing crashes."""
    if isinstance(error, Violation):
        promise, facts = error.args
        return promise, facts
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, AssertionError):
        return "invariants", f"{error}{where}"
    return "no crash", f"{type(error).__name__}: {error}{where}"
