"""Finds what belongs together in a log, without an index for it: what some requests set off, what an event caused.

Such events lie close together: an effect follows its cause as soon as its consumer gets there, and while that one is
held up, its log hardly grows. So a look goes through the positions around known times, then around every event that it
finds, and into the streams of those by their index. What was looked at is told, so that nobody takes it for all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from twinlog.log import scan
from twinlog.log.chain import Covered
from twinlog.log.ports import Log, ReadRequest
from twinlog.model.event import Recorded, StreamId

_BEFORE, _AHEAD = 1_000, 10_000
"""Positions that are looked at around an event: clocks differ, so an effect may seem to be older than its cause."""
_STREAMS, _OF_STREAM = 100, 500
"""Streams of found events that are read on, and events of each."""


@runtime_checkable
class Searching(Protocol):
    """A log that can look for related events by itself."""

    async def related(
        self, after: int, upto: int, correlations: Sequence[str], causes: Sequence[str]
    ) -> Sequence[Recorded]:
        """The events between two positions that have one of these correlation ids or causes, in order."""


class Range(NamedTuple):
    """A part of a log."""

    after: int
    """The position before its first event."""
    upto: int
    """The position of its last event."""


class Related:
    """One look for the events of a log that have one of some correlation ids, or one of some causes."""

    def __init__(
        self, log: Log, head: int, *, correlations: Sequence[str] = (), causes: Sequence[str] = ()
    ) -> None:
        self._looked_at = Covered()
        self._log = log
        self._head = head
        self._correlations = correlations
        self._causes = causes
        self._left = scan.MOST_LOOKED_AT
        self._found: dict[int, Recorded] = {}
        self._fresh: list[Recorded] = []
        """Found, and not yet looked around."""
        self._streams: set[StreamId] = set()

    @property
    def looked_at(self) -> Sequence[Range]:
        """Apart from each other, in order."""
        return [Range(first - 1, last) for first, last in self._looked_at.runs]

    @property
    def events(self) -> Sequence[Recorded]:
        """What was found, in order."""
        return [self._found[position] for position in sorted(self._found)]

    @property
    def complete(self) -> bool:
        """Whether the whole log was looked at."""
        return self._head == 0 or self.looked_at == [Range(0, self._head)]

    async def newest(self) -> None:
        """Looks at the end of the log."""
        await self._look(self._head - self._left, self._head)

    async def around(self, times: Sequence[datetime]) -> None:
        """Looks where events of these times are, and at what follows them."""
        covered: datetime | None = None
        for time in sorted(times):
            if covered and time <= covered:
                continue
            first = await scan.first_at(self._log, time, self._head)
            await self._look(first, first + _BEFORE + _AHEAD)
            last = await self._log.read(min(first + _BEFORE + _AHEAD, self._head) - 1, 1)
            covered = last[0].recorded_at if last else None

    async def behind(self, event: Recorded) -> None:
        """Looks at what follows an event: in the log, and in its stream."""
        await self._look(event.position, event.position + _AHEAD)
        await self._along([event])

    async def spread(self) -> None:
        """Looks around what was found, and in its streams, until that brings nothing more."""
        while self._fresh:
            fresh, self._fresh = self._fresh, []
            await self._along(fresh)
            for event in fresh:
                await self._look(event.position - _BEFORE, event.position + _AHEAD)

    async def _along(self, events: Sequence[Recorded]) -> None:
        room = _STREAMS - len(self._streams)
        new = {event.stream: event.version for event in events if event.stream not in self._streams}
        wanted = list(new.items())[:room]
        self._streams.update(stream for stream, _ in wanted)
        asked = [ReadRequest(stream, version, upto=version + _OF_STREAM) for stream, version in wanted]
        for slice in await self._log.load(asked) if asked else ():
            self._take([event for event in slice.events if event.position <= self._head])

    async def _look(self, after: int, upto: int) -> None:
        for first, last in self._looked_at.missing(max(0, after) + 1, min(upto, self._head)):
            after, end = first - 1, min(last, first - 1 + self._left)
            if end <= after:
                return
            async for events in self._read(after, end):
                self._take(events)
            self._left -= end - after
            self._looked_at.add(first, end)

    async def _read(self, after: int, upto: int) -> AsyncIterator[Sequence[Recorded]]:
        step = _AHEAD if isinstance(self._log, Searching) else scan.PAGE
        while after < upto:
            end = min(after + step, upto)
            if isinstance(self._log, Searching):
                yield await self._log.related(after, end, self._correlations, self._causes)
            else:
                yield await self._log.read(after, end - after)
            after = end

    def _take(self, events: Sequence[Recorded]) -> None:
        for event in events:
            if event.position not in self._found and is_related(event, self._correlations, self._causes):
                self._found[event.position] = event
                self._fresh.append(event)


def is_related(event: Recorded, correlations: Sequence[str], causes: Sequence[str]) -> bool:
    """Whether an event has one of these correlation ids or causes."""
    return event.metadata.correlation_id in correlations or event.metadata.causation_id in causes


async def causes(log: Log, event: Recorded, most: int) -> tuple[Sequence[Recorded], str]:
    """The cause of an event, the cause of that, and so on, as far as this log has them; and what caused the last.

    The latter is empty where nothing did.
    """
    found: list[Recorded] = []
    cause = event.metadata.causation_id
    before = event.position
    while len(found) < most and (position := position_in(log.name, cause)) and position < before:
        events = await log.read(position - 1, 1)
        if not events:
            break
        found += events
        cause, before = events[0].metadata.causation_id, position
    return found, cause


def position_in(log: str, address: str) -> int:
    """The position that an address names in a log; 0 where it names none of this log."""
    name, _, position = address.rpartition("/")
    return int(position) if name == log and position.isascii() and position.isdigit() else 0
