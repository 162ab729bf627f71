"""Waits between tries: growing, capped, and jittered so that replicas do not march in step."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Protocol


class Randomness(Protocol):
    """A source of chance; ``random.Random(seed)`` is one."""

    def random(self) -> float:
        """At least 0, less than 1."""
        ...


def backoff(first: float = 0.05, cap: float = 5.0, randomness: Randomness = random) -> Iterator[float]:
    """Seconds to wait before each next try, without end: doubling up to ``cap``, less up to half of it."""
    ceiling = min(first, cap)
    while True:
        yield ceiling * (0.5 + 0.5 * randomness.random())
        ceiling = min(2 * ceiling, cap)
