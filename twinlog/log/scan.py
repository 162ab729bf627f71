"""Looks through a log for the events that somebody asks for: a range, or the newest; only so much at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, runtime_checkable

from twinlog.log.past import FindsMoments, Moment
from twinlog.log.ports import Log, ReadRequest
from twinlog.model.event import MOST_VERSION, Recorded, StreamId, known_stream

PAGE = 500
MOST_LOOKED_AT = 100_000
"""Events that one look through a log may read."""
_AT_ONCE = 10_000
"""Positions that a log which finds by itself is asked about at once."""
_CLOCKS_DIFFER = 1_000
"""Events before the first one of a time are looked at, too: replicas' clocks may put neighbors in another order."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events are wanted; what is empty restricts nothing."""

    stream: str = ""
    """``type/id``, or the type of many streams."""
    types: frozenset[str] = frozenset()
    """Full or short names."""
    routing_key: str = ""
    correlation_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    """Before it, not at it."""

    def fits(self, event: Recorded) -> bool:
        """Whether an event is wanted."""
        return (
            (not self.stream or self.stream in (str(event.stream), event.stream.type))
            and (not self.types or not self.types.isdisjoint((event.type, event.type.rpartition(".")[2])))
            and self.routing_key in ("", event.routing_key)
            and self.correlation_id in ("", event.metadata.correlation_id)
            and (self.since is None or event.recorded_at >= self.since)
            and (self.until is None or event.recorded_at < self.until)
        )

    @property
    def stream_id(self) -> StreamId | None:
        """The one stream that is wanted; None: more than one."""
        type, slash, id = self.stream.partition("/")
        return known_stream((type, id)) if slash else None


@runtime_checkable
class Finding(Protocol):
    """A log that can look for events by itself, in a tenth of the time."""

    async def found(self, wanted: Filter, after: int, upto: int, most: int) -> Sequence[Recorded]:
        """The newest events between two positions that fit, at most so many, in order."""

    async def found_in(
        self, stream: StreamId, wanted: Filter, after: int, upto: int, most: int
    ) -> Sequence[Recorded]:
        """The same of one stream, between two of its versions."""


class Page(NamedTuple):
    """A piece of the log that was looked through."""

    events: Sequence[Recorded]
    """Those that are wanted."""
    position: int
    """Up to here the log was looked through."""


async def pages(log: Log, wanted: Filter, after: int, upto: int) -> AsyncIterator[Page]:
    """The pieces of a log after a position up to another, each read when it is asked for."""
    if after >= upto:
        return
    # A few events are looked at where they lie: a stream is as long as it is, whatever is new in it.
    if (stream := wanted.stream_id) and upto - after > PAGE:
        handled = await _version_by(log, stream, after)
        async for events in versions(log, stream, after=handled):
            found = [event for event in events if after < event.position <= upto and wanted.fits(event)]
            yield Page(found, min(upto, events[-1].position))
        yield Page([], upto)
        return
    while after < upto:
        events = [event for event in await log.read(after, PAGE) if event.position <= upto]
        if not events:
            return
        after = events[-1].position
        yield Page([event for event in events if wanted.fits(event)], after)


async def versions(
    log: Log, stream: StreamId, upto: int = MOST_VERSION, *, after: int = 0
) -> AsyncIterator[Sequence[Recorded]]:
    """The events of a stream after a version and up to another, piece by piece."""
    version = after
    while version < upto:
        [slice] = await log.load([ReadRequest(stream, version, upto=min(upto, version + PAGE))])
        if not slice.events:
            return
        yield slice.events
        version = slice.events[-1].version


async def version_at(log: Log, stream: StreamId, moment: Moment) -> int:
    """The version of a stream at a moment; 0: it had not begun. Raises Unavailable.

    A version that it does not have yet, and now, are the largest number of all. Where the log does not find moments,
    the stream is halved: all events after one that is beyond the moment are taken to be so, too.
    """
    if not (moment.position or moment.time):
        return moment.version or MOST_VERSION
    if isinstance(log, FindsMoments):
        return await log.version_at(stream, moment)
    low, high = 0, await _last_version(log, stream)
    while low < high:
        middle = (low + high + 1) // 2
        event = await _version(log, stream, middle)
        if event is None or _is_beyond(event, moment):
            high = middle - 1
        else:
            low = middle
    return low


def _is_beyond(event: Recorded, moment: Moment) -> bool:
    if moment.time is not None:
        return event.recorded_at > moment.time
    return event.position > moment.position


async def _last_version(log: Log, stream: StreamId) -> int:
    """Found by doubling, then by halving; 0: there is no such stream."""
    known, beyond = 0, 1
    while await _version(log, stream, beyond):
        known, beyond = beyond, 2 * beyond
    while beyond - known > 1:
        middle = (known + beyond) // 2
        if await _version(log, stream, middle):
            known = middle
        else:
            beyond = middle
    return known


async def _version(log: Log, stream: StreamId, version: int) -> Recorded | None:
    [slice] = await log.load([ReadRequest(stream, version - 1, upto=version)])
    return slice.events[0] if slice.events else None


async def newest(log: Log, wanted: Filter, count: int, after: int, upto: int) -> tuple[list[Recorded], bool]:
    """The newest events that are wanted, in order, and whether the log was looked through far enough to know."""
    if wanted.until:
        upto = min(upto, await first_at(log, wanted.until, upto) + 2 * _CLOCKS_DIFFER)
    if wanted.since:
        after = max(after, await first_at(log, wanted.since, upto))
    if stream := wanted.stream_id:  # from here on by its versions, and not by positions of the log
        after, upto = await _version_by(log, stream, after), await _version_by(log, stream, upto)
    found: list[Recorded] = []
    lowest, end = max(after, upto - MOST_LOOKED_AT), upto
    step = _AT_ONCE if isinstance(log, Finding) else PAGE
    while end > lowest and len(found) < count:
        start, most = max(lowest, end - step), count - len(found)
        if stream:
            found[:0] = await _of_stream(log, stream, wanted, start, end, most)
        else:
            found[:0] = await _between(log, wanted, start, end, most)
        end = start
    return found[-count:], len(found) >= count or lowest == after


async def _between(log: Log, wanted: Filter, after: int, upto: int, most: int) -> Sequence[Recorded]:
    """The newest events between two positions that fit; no more are needed than ``most``."""
    if isinstance(log, Finding):
        return await log.found(wanted, after, upto, most)
    events = await log.read(after, upto - after)
    return [event for event in events if event.position <= upto and wanted.fits(event)]


async def _of_stream(
    log: Log, stream: StreamId, wanted: Filter, after: int, upto: int, most: int
) -> Sequence[Recorded]:
    """The newest events of a stream between two versions that fit; no more are needed than ``most``."""
    if isinstance(log, Finding):
        return await log.found_in(stream, wanted, after, upto, most)
    [slice] = await log.load([ReadRequest(stream, after, upto=upto)])
    return [event for event in slice.events if wanted.fits(event)]


async def _version_by(log: Log, stream: StreamId, position: int) -> int:
    """The last version of a stream up to a position."""
    return await version_at(log, stream, Moment(position=position)) if position else 0


async def first_at(log: Log, time: datetime, head: int) -> int:
    """A position after which all events of a time and later lie, and few others."""
    low, high = 0, head
    while low < high:
        middle = (low + high) // 2
        event = await _at(log, middle + 1)
        if event and event.recorded_at < time:
            low = middle + 1
        else:
            high = middle
    return max(0, low - _CLOCKS_DIFFER)


async def _at(log: Log, position: int) -> Recorded | None:
    found = await log.read(position - 1, 1)
    return found[0] if found else None
