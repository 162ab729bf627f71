"""Kept snapshots: besides the newest, one at every so many versions of a stream, so that any version is read at once.

An aggregate says how many versions lie between two, and how much space those of one stream may take. They are a cache
like the newest ones: one that is missing, damaged, of another schema or of another history is passed over and made
anew when somebody comes by.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import say
from twinlog.log.past import KeepsSnapshots, KeptKey, KeptSnapshot
from twinlog.log.ports import Log, ReadRequest, Snapshot
from twinlog.log.snapshots import StateCodecs, not_encoded
from twinlog.log.streams import fold
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.aggregate import LEAST_KEEP_EVERY, AnyAggregate
from twinlog.model.event import StreamId
from twinlog.model.schema import Schema

_MOST_WAITING = 1_000
_PAGE = 1_000


def stride(aggregate: AnyAggregate, version: int, size: int) -> int:
    """How many versions lie between two kept snapshots of a stream that has come to a version and a size in bytes."""
    return spread(aggregate.keep_every, aggregate.keep_bytes, version, size)


def spread(every: int, most: int, version: int, size: int) -> int:
    """``every``, doubled until all that is kept up to a version takes no more than ``most`` bytes.

    So what stays is spread evenly over the stream.
    """
    while version // every * size > most:
        every *= 2
    return every


class KeptStates:
    """Keeps states of streams, as their aggregates' policies say."""

    def __init__(self, log: Log, codecs: StateCodecs) -> None:
        self._log = log
        self._codecs = codecs

    async def keep(self, stream: StreamId, at: Entry) -> None:
        """Keeps a snapshot of a stream, at a version that is due for one. Raises Unavailable.

        A state that cannot be encoded is skipped.
        """
        if not isinstance(self._log, KeepsSnapshots):
            return
        if at.version % stride(at.aggregate, at.version, self._codecs.size(stream)):
            return
        try:
            state = await self._codecs.encoded(stream, at)
        except Exception as error:
            not_encoded(stream, at.aggregate, error)
            return
        every = stride(at.aggregate, at.version, len(state))
        if at.version % every == 0:
            schema = self._codecs.schema(at.aggregate)
            kept = await self._codecs.sealed([Snapshot(stream, at.version, at.position, schema, state)])
            if kept:
                await self._log.keep(kept)
        if every > at.aggregate.keep_every:
            await self._log.drop_kept(*stream, but_multiples_of=every)


async def drop_surplus(log: Log, declared: Mapping[str, AnyAggregate]) -> int:
    """Drops what the aggregates keep no longer, in all streams; returns how many.

    An earlier deploy may have kept more versions, or more bytes, or have had other aggregates. Raises Unavailable.
    """
    dropped = 0
    if isinstance(log, KeepsSnapshots):
        async for kept in _by_stream(log):
            newest = kept[-1]
            aggregate = declared.get(newest.stream.type)
            keeps = aggregate and aggregate.keep_every
            every = stride(aggregate, newest.version, newest.bytes) if aggregate and keeps else 0
            if not every or any(each.version % every for each in kept):
                dropped += await log.drop_kept(*newest.stream, but_multiples_of=every)
    return dropped


async def _by_stream(log: KeepsSnapshots) -> AsyncIterator[Sequence[KeptSnapshot]]:
    """What is kept of each stream, by version."""
    after, found = KeptKey(), list[KeptSnapshot]()
    while page := await log.kept("", "", after, _PAGE):
        for each in page:
            if found and found[-1].stream != each.stream:
                yield found
                found = []
            found.append(each)
        after = KeptKey(*page[-1].stream, page[-1].version)
    if found:
        yield found


class _Passed(NamedTuple):
    """A stream that has passed a version that is due for a snapshot."""

    stream: StreamId
    before: Entry
    """The stream before it; what lies between is in the log."""
    upto: int
    """The last such version."""


class Keeper:
    """The task that keeps snapshots of what a writer commits; each writer owns one."""

    def __init__(self, log: Log, schema: Schema, codecs: StateCodecs, *, randomness: Randomness) -> None:
        self._log = log
        self._schema = schema
        self._codecs = codecs
        self._kept = KeptStates(log, codecs)
        self._waiting: deque[_Passed] = deque(maxlen=_MOST_WAITING)
        """Beyond that, the oldest are left to the next reader of the stream."""
        self._wake = asyncio.Event()
        self._retrying = Retrying(
            say_failing=say.warning("snapshots.not_kept", log=log.name),
            say_working=lambda: None,
            randomness=randomness,
        )

    @property
    def waiting(self) -> int:
        """How many streams wait to have a snapshot kept."""
        return len(self._waiting)

    def offer(self, before: Mapping[StreamId, Entry], after: Mapping[StreamId, Entry]) -> None:
        """Takes the streams as they were before a batch, and as they are after it."""
        for stream, entry in after.items():
            if entry.version >= LEAST_KEEP_EVERY and (every := entry.aggregate.keep_every):
                upto = entry.version // every * every
                if (was := before.get(stream)) and was.version < upto:
                    at_it = entry.version == upto and entry.version - was.version <= every
                    self._waiting.append(_Passed(stream, entry if at_it else was, upto))
                    self._wake.set()

    def forget(self) -> None:
        """Drops what was offered and is not kept yet."""
        self._waiting.clear()

    async def run(self) -> None:
        """Keeps what is offered, endlessly. What cannot be kept is dropped; the next reader of the stream keeps it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                # Neither an outage nor a fault of this one ends the task.
                await self._retrying.bear(self._keep(self._waiting.popleft()))

    async def _keep(self, passed: _Passed) -> None:
        stream, at, upto = passed
        every = at.aggregate.keep_every
        while at.version < upto:  # a batch went past it
            end = (at.version // every + 1) * every
            [slice] = await self._log.load([ReadRequest(stream, at.version, upto=end, to_fold=True)])
            found = fold(self._schema, at, await self._codecs.opened(slice.events))
            if isinstance(found, Unreadable) or found.version != end:
                return
            at = found
            await self._kept.keep(stream, at)
        if at is passed.before:
            await self._kept.keep(stream, at)
