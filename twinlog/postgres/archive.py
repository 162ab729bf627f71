"""The archive of a log in Postgres, for whoever reads below its end: which range has a position, and its events."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from twinlog.log.archive import ArchivedRange, ArchiveReader
from twinlog.model.event import Recorded
from twinlog.postgres.named_queries import load_queries

_QUERIES = load_queries("twinlog.postgres.sql")
_RANGES_KEPT = 16

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Gives the rows of a query with its arguments."""


class Archive:
    """The archive of one log."""

    def __init__(self, log: str) -> None:
        self._reader = ArchiveReader(log)
        self._ranges: OrderedDict[int, ArchivedRange] = OrderedDict()

    async def read(self, fetch: Fetch, after: int, limit: int) -> list[Recorded]:
        """Up to ``limit`` events that follow a position without a gap, as far as they are in the archive."""
        found: list[Recorded] = []
        while len(found) < limit and (of := await self._range_at(fetch, after + 1)):
            found += await self._reader.slice(of, after + 1, min(of.last, after + limit - len(found)))
            after = found[-1].position
        return found

    async def at(self, fetch: Fetch, positions: Collection[int]) -> dict[int, Recorded]:
        """The events at some positions that are in the archive."""
        by_range: defaultdict[ArchivedRange, list[int]] = defaultdict(list)
        for position in positions:
            if of := await self._range_at(fetch, position):
                by_range[of].append(position)
        found = [e for of, wanted in by_range.items() for e in await self._reader.at(of, wanted)]
        return {event.position: event for event in found}

    async def _range_at(self, fetch: Fetch, position: int) -> ArchivedRange | None:
        for of in self._ranges.values():
            if of.first <= position <= of.last:
                return of
        for row in await fetch(_QUERIES["archived_at"], position):
            of = range_of(row)
            if position > of.last:
                continue
            self._ranges[of.first] = of
            if len(self._ranges) > _RANGES_KEPT:
                self._ranges.popitem(last=False)
            return of
        return None


def range_of(row: Sequence[Any]) -> ArchivedRange:
    """The range in a row; hashable."""
    first, last, file, size, digest, offsets, firsts, digests = row
    return ArchivedRange(first, last, file, size, digest, tuple(offsets), tuple(firsts), tuple(digests))
