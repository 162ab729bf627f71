"""Numbers that hot paths add to. They belong to one event loop, so they need no lock, and cost an addition each."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Sequence

from twinlog.model.errors import Overloaded, TwinlogError, Unavailable

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of durations."""
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
"""Upper bounds of the buckets of batches."""
AGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds of the buckets of what may be old."""

# What failures are called.
OTHER = "OTHER"
OK = "OK"
CANCELLED = "CANCELLED"
INTERNAL = "INTERNAL"
UNAVAILABLE = Unavailable.reason
OVERLOADED = Overloaded.reason
_MOST_VALUES = 100


class Histogram:
    """How often a value was how large."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        """``bounds``: the upper bounds of the buckets, ascending; what is larger has its own bucket."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, number: int = 1) -> None:
        """Counts a value, so many times."""
        self.counts[bisect_left(self.bounds, value)] += number
        self.sum += value * number

    @property
    def count(self) -> int:
        return sum(self.counts)


class Bounded:
    """Counts by a word that others choose: beyond a hundred words, all further ones are counted as OTHER."""

    __slots__ = ("counts",)

    def __init__(self, *words: str) -> None:
        """``words``: those that are told from the start, so that their first time shows as an increase."""
        self.counts: dict[str, int] = dict.fromkeys(words, 0)

    def add(self, word: str) -> None:
        if word not in self.counts and len(self.counts) >= _MOST_VALUES:
            word = OTHER
        self.counts[word] = self.counts.get(word, 0) + 1


def reason_of(error: BaseException) -> str:
    """The reason of an error, as clients see it in ErrorInfo; INTERNAL for a defect."""
    if isinstance(error, TwinlogError):
        return error.reason
    return CANCELLED if isinstance(error, asyncio.CancelledError | GeneratorExit) else INTERNAL
