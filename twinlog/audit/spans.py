"""Runs of positions: what is read of them ahead, and which of them are covered."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Generic, TypeVar

BATCH = 2_000
"""Links, events or messages read at once."""
T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Reads ahead: what is asked for in order is fetched in large pieces."""

    def __init__(self, fetch: Callable[[int, int], Awaitable[Mapping[int, T]]]) -> None:
        self._fetch = fetch
        self._kept: Mapping[int, T] = {}
        self._first, self._last = 1, 0

    async def between(self, first: int, last: int) -> Mapping[int, T]:
        """What there is between two positions, and maybe more."""
        if not self._first <= first <= last <= self._last:
            self._first, self._last = first, max(last, first + BATCH - 1)
            self._kept = await self._fetch(self._first, self._last)
        return self._kept


class Covered:
    """Positions that links cover, as unbroken runs."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def add(self, first: int, last: int) -> bool:
        """Whether none of them were covered before."""
        at = bisect_left(self._lasts, first)
        if at < len(self._firsts) and self._firsts[at] <= last:
            return False
        self._firsts.insert(at, first)
        self._lasts.insert(at, last)
        for index in (at + 1, at):  # with the neighbors
            if 0 < index < len(self._firsts) and self._lasts[index - 1] + 1 == self._firsts[index]:
                del self._firsts[index], self._lasts[index - 1]
        return True

    def missing(self, upto: int) -> Iterator[tuple[int, int]]:
        """The runs up to a position that are not covered."""
        after = 0
        for first, last in zip(self._firsts, self._lasts, strict=True):
            if first > after + 1:
                yield after + 1, first - 1
            after = max(after, last)
        if after < upto:
            yield after + 1, upto
