"""Streams as they were: the state of an aggregate at any moment, folded from the nearest snapshot before it.

Snapshots that should be there and are not, because the stream is older than they are or one was damaged, are kept on
the way, so the next look is quick.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from twinlog.log import scan
from twinlog.log.kept_snapshots import KeptStates
from twinlog.log.past import KeepsSnapshots, Moment
from twinlog.log.personal import Erased
from twinlog.log.ports import Log, ReadRequest, Snapshot
from twinlog.log.snapshots import StateCodecs
from twinlog.log.streams import beginning, fold
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import TwinlogError, Unavailable
from twinlog.model.event import MOST_VERSION, Recorded, StreamId, known_stream
from twinlog.model.schema import Schema

_PAGE = 1_000
_FOLDED_AT_ONCE = 100
"""Events; a large state takes some 20 µs for each."""
_MOST_LEFT = 4
_LEFT_SECONDS = 10.0
"""How long it is remembered how far a stream was folded for somebody who did not wait: states may be large, and hold
personal texts."""


class StillFolding(Exception):
    """A stream takes longer to fold than its reader waits; who asks again soon goes on from there."""

    def __init__(self, at: Entry) -> None:
        super().__init__(f"it takes longer to fold: {at.version:,} events so far; ask again")
        self.folded = at.version


class _Left(NamedTuple):
    """How far a stream was folded."""

    at: Entry
    forgotten: asyncio.TimerHandle


class TimeTravel:
    """Reads the streams of one log as they were."""

    def __init__(self, log: Log, schema: Schema, codecs: StateCodecs | None = None) -> None:
        """``codecs`` counts the snapshots that were of no use."""
        self._log = log
        self._schema = schema
        self._codecs = codecs or StateCodecs(schema)
        self._kept = KeptStates(log, self._codecs)
        self._left: OrderedDict[tuple[StreamId, int], _Left] = OrderedDict()
        """By the streams and the versions up to which they are folded."""
        self._erasures = 0
        """How often it was told that somebody is erased: what was begun before may hold their texts."""
        if personal := self._codecs.personal:
            personal.known.on_erased.append(self._forget_erased)

    async def version(self, stream: StreamId, moment: Moment) -> int:
        """As :func:`twinlog.log.scan.version_at`."""
        return await scan.version_at(self._log, stream, moment)

    async def state(
        self, aggregate: AnyAggregate, id: str, moment: Moment, *, until: float | None = None
    ) -> Entry | Unreadable:
        """A stream as it was at a moment; at version 0 where it had not begun. Raises Unavailable.

        ``until``: a time of the event loop, by which its reader wants an answer; None: whenever it comes. Raises
        StillFolding where it takes longer.
        """
        stream = known_stream((aggregate.name, id))
        return await self._upto(aggregate, stream, await self.version(stream, moment), until)

    async def rebuild(self, aggregate: AnyAggregate, id: str) -> Entry | Unreadable:
        """Makes the kept snapshots of a stream anew, from its first event. Raises Unavailable."""
        if isinstance(self._log, KeepsSnapshots):
            await self._log.drop_kept(aggregate.name, id)
        return await self._folded(beginning(aggregate), known_stream((aggregate.name, id)), MOST_VERSION)

    async def _upto(
        self, aggregate: AnyAggregate, stream: StreamId, upto: int, until: float | None
    ) -> Entry | Unreadable:
        if self._codecs.personal:
            self._codecs.personal.known.doubt()
        if left := self._forget((stream, upto)):
            erasures = self._erasures
            further = await self._folded(left, stream, upto, until)
            if isinstance(further, Entry):  # who compares two states of it asks once more for this one
                self._leave((stream, upto), further, erasures)
            if not _may_be_its_fault(further):
                return further
        below = upto
        while below > 0:
            start, snapshot = await self._nearest(aggregate, stream, below)
            found = await self._folded(start, stream, upto, until) if start else None
            if found and not (snapshot and _may_be_its_fault(found)):
                return found
            below = snapshot.version - 1 if snapshot else 0
        return await self._folded(beginning(aggregate), stream, upto, until)

    async def _nearest(
        self, aggregate: AnyAggregate, stream: StreamId, upto: int
    ) -> tuple[Entry | None, Snapshot | None]:
        """Where to begin, and the snapshot that is there; the entry is None where that snapshot cannot be used."""
        nearest = None
        if isinstance(self._log, KeepsSnapshots):
            nearest = await self._log.nearest(stream, self._codecs.schema(aggregate), upto)
        if nearest is None:
            return beginning(aggregate), None
        snapshot = nearest.snapshot
        try:
            entry = await self._codecs.entry(aggregate, nearest)
        except Erased:  # so are all others
            return beginning(aggregate), None
        except Exception as error:  # what decodes a state may raise anything over bytes that are none
            self._codecs.ignore(stream, error)
            return None, snapshot
        return entry, snapshot

    async def _folded(
        self, at: Entry, stream: StreamId, upto: int, until: float | None = None
    ) -> Entry | Unreadable:
        """A stream up to a version; what should be kept on the way is. Raises StillFolding."""
        every, now, erasures = at.aggregate.keep_every, asyncio.get_running_loop().time, self._erasures
        async for events in self._events(stream, at.version, upto):
            for part in _parts(events, every):
                found = fold(self._schema, at, part)
                if isinstance(found, Unreadable):
                    return found
                at = found
                await asyncio.sleep(0)
                if every and at.version % every == 0:
                    with suppress(Unavailable):  # it is only a cache
                        await self._kept.keep(stream, at)
                if until is not None and at.version < upto and now() > until:
                    self._leave((stream, upto), at, erasures)
                    raise StillFolding(at)
        return at

    def _leave(self, key: tuple[StreamId, int], at: Entry, erasures: int) -> None:
        """Remembers for a while how far a stream was folded, unless an erasure came after so many."""
        self._forget(key)
        if erasures != self._erasures:
            return
        loop = asyncio.get_running_loop()
        self._left[key] = _Left(at, loop.call_later(_LEFT_SECONDS, self._forget, key))
        if len(self._left) > _MOST_LEFT:
            self._forget(next(iter(self._left)))

    def _forget(self, key: tuple[StreamId, int]) -> Entry | None:
        """What was remembered; None: nothing was."""
        if left := self._left.pop(key, None):
            left.forgotten.cancel()
            return left.at
        return None

    def _forget_erased(self, subject: str) -> None:
        """Forgets what may hold texts of somebody who is erased, or of whom it is no longer known."""
        assert self._codecs.personal
        self._erasures += 1
        for (stream, upto), left in [*self._left.items()]:
            if self._codecs.personal.may_show({subject}, stream, left.at.aggregate):
                self._forget((stream, upto))

    async def _events(self, stream: StreamId, after: int, upto: int) -> AsyncIterator[Sequence[Recorded]]:
        while after < upto:
            [slice] = await self._log.load(
                [ReadRequest(stream, after, upto=min(upto, after + _PAGE), to_fold=True)]
            )
            if not slice.events:
                return
            yield await self._codecs.opened(slice.events)
            after = slice.events[-1].version


def _parts(events: Sequence[Recorded], every: int) -> Sequence[Sequence[Recorded]]:
    """Events of a stream, cut after each version that has a kept snapshot, and so that the loop gets its turn."""
    cuts = [
        n
        for n, event in enumerate(events, 1)
        if (every and event.version % every == 0) or n % _FOLDED_AT_ONCE == 0
    ]
    ends = [*cuts, len(events)]
    return [events[start:end] for start, end in zip([0, *cuts], ends, strict=True) if start < end]


def _may_be_its_fault(found: Entry | Unreadable) -> bool:
    """Whether a stream cannot be read because of the snapshot that it was begun with: the events are sound."""
    return isinstance(found, Unreadable) and not isinstance(found.why.__cause__, TwinlogError)
