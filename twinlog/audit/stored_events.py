"""Reads what the chain of a log covers: events, in pieces and as far as they can be read, and their digests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from struct import error as StructError
from typing import Generic, Protocol, TypeVar, runtime_checkable

from twinlog.log.archive import ArchiveDamaged
from twinlog.log.chain import Chained, Link, event_digests
from twinlog.model.event import Recorded

BATCH = 2_000
"""Links, events or messages read at once."""

_FORMS = (TypeError, ValueError, AttributeError, ArithmeticError, StructError)
"""What is raised where a field holds what no event has."""

T = TypeVar("T")


class ChainedLog(Chained, Protocol):
    name: str

    async def read(self, after: int, limit: int) -> Sequence[Recorded]: ...

    async def head(self) -> int: ...


@runtime_checkable
class InSeveralPlaces(Protocol):
    """A log that may have an event in its table and in its archive, too."""

    async def copies(self, after: int, upto: int) -> Mapping[str, Sequence[Recorded]]: ...


class StoredEvents:
    """The events of a log, wherever they are."""

    def __init__(self, log: ChainedLog, *, copies: int) -> None:
        """``copies``: the most of those that are noted."""
        self._log = log
        self._most_copies = copies
        self.copies: dict[int, tuple[str, Recorded]] = {}
        """By position, events that another place has otherwise than what was read, with the place."""
        self.damaged = ""
        """What is wrong with the archive."""

    async def read(self, first: int, last: int) -> Mapping[int, Recorded]:
        """The events between two positions; without those that cannot be read."""
        try:
            events = await self._log.read(first - 1, last + 1 - first)
            await self._note_copies(events, first, last)
        except ArchiveDamaged as error:
            # The first event is found exactly; then whole files are left out.
            if self.damaged or first == last:
                self.damaged = str(error)
                file = int(error.facts["first"]), int(error.facts["last"])
                before = await self.read(first, file[0] - 1) if first < file[0] else {}
                return {**before, **(await self.read(file[1] + 1, last) if file[1] < last else {})}
        except _FORMS:
            if first == last:
                return {}
        else:
            return {event.position: event for event in events if event.position <= last}
        middle = (first + last) // 2
        return {**await self.read(first, middle), **await self.read(middle + 1, last)}

    async def _note_copies(self, events: Sequence[Recorded], first: int, last: int) -> None:
        if not isinstance(self._log, InSeveralPlaces) or len(self.copies) >= self._most_copies:
            return
        read = {event.position: event for event in events}
        for place, copy in (await self._log.copies(first - 1, last)).items():
            self.copies |= {e.position: (place, e) for e in copy if e != read.get(e.position)}


def digests_of(events: Mapping[int, Recorded], link: Link) -> list[bytes]:
    """The digests of a link's events; empty for one that is gone or malformed."""
    positions = range(link.first, link.last + 1)
    try:
        if len(events) >= len(positions):
            return event_digests([events[position] for position in positions])
    except (KeyError, *_FORMS):
        pass
    return [digest_of(events.get(position)) for position in positions]


def digest_of(event: Recorded | None) -> bytes:
    """That of one; empty as well."""
    try:
        return event_digests([event])[0] if event else b""
    except _FORMS:
        return b""


class Ahead(Generic[T]):
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
