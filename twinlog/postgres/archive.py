"""Reads the archive of a log in Postgres: which range a position lies in, and its events."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any

from twinlog.log.archive import ArchiveDamaged, ArchivedRange, ArchiveReader
from twinlog.model.event import Recorded
from twinlog.postgres.named_queries import QUERIES

_RANGES_KEPT = 16
_PAGE = 2_000

Fetch = Callable[..., Awaitable[Sequence[Any]]]
"""Gives the rows of a query with its arguments."""
Table = Callable[[int, int], Awaitable[Sequence[Recorded]]]
"""Gives up to so many events of the table after a position, in order, whether it has gaps or not."""


class Archive:
    """The archive of one log."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._reader = ArchiveReader(log)
        self._ranges: OrderedDict[int, ArchivedRange] = OrderedDict()

    async def filled(
        self, fetch: Fetch, table: Table, after: int, limit: int, events: Sequence[Recorded]
    ) -> Sequence[Recorded]:
        """``events`` of the table after a position, or where these have gaps, the same with those of the files.

        ``table`` gives up to so many events of the table after a position.
        """
        found: list[Recorded] = []
        # Rows of another range may leave the table after the files were looked at, so the table is looked at again.
        while events and not (events[0].position == after + 1 and events[-1].position == after + len(events)):
            more = await self.read(fetch, after, limit)
            found += more
            after, limit = after + len(more), limit - len(more)
            if not (more and limit):
                break
            events = await table(after, limit)
        return [*found, *events[:limit]] if found else events

    async def pages(self, fetch: Fetch, after: int, upto: int) -> AsyncIterator[Sequence[Recorded]]:
        """The events between two positions, as far as they are in the archive."""
        while after < upto and (events := await self.read(fetch, after, min(_PAGE, upto - after))):
            yield events
            after = events[-1].position

    async def read(self, fetch: Fetch, after: int, limit: int) -> list[Recorded]:
        """Up to ``limit`` events that follow a position without a gap, as far as they are in the archive."""
        found: list[Recorded] = []
        while len(found) < limit and (of := await self._range_at(fetch, after + 1)):
            found += await self._reader.slice(of, after + 1, min(of.last, after + limit - len(found)))
            after = found[-1].position
        return found

    async def at(self, fetch: Fetch, positions: Collection[int]) -> dict[int, Recorded]:
        """The events at some positions of the archive. Raises ArchiveDamaged where one is not there."""
        by_range: defaultdict[ArchivedRange, list[int]] = defaultdict(list)
        for position in positions:
            if not (of := await self._range_at(fetch, position)):
                why = "table archived_ranges has no range with them"
                raise ArchiveDamaged(log=self._log, first=position, last=position, file="its file", why=why)
            by_range[of].append(position)
        found = [e for of, wanted in by_range.items() for e in await self._reader.at(of, wanted)]
        return {event.position: event for event in found}

    async def _range_at(self, fetch: Fetch, position: int) -> ArchivedRange | None:
        for of in self._ranges.values():
            if of.first <= position <= of.last:
                return of
        for row in await fetch(QUERIES["archived_at"], position):
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
