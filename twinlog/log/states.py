"""The cache of states: streams as this process knows them, read again when they turn out to be stale.

A stream that cannot be read fails those who read it, and nobody else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import structlog

from twinlog.log.kept_snapshots import Keeper
from twinlog.log.ports import LogSession
from twinlog.log.snapshots import Snapshots
from twinlog.log.streams import StreamReader, beginning
from twinlog.log.transaction import Entry
from twinlog.log.units import StreamRef
from twinlog.log.unreadable import Unreadable, UnreadableStreams
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import StreamUnreadable
from twinlog.model.event import StreamId, known_stream
from twinlog.model.schema import Schema

_UNDECLARED = (
    "it is none of the service's aggregates, so its timers are never fired, and neither audit nor inspection knows its "
    "states; add it to the aggregates of the ServiceSpec"
)

_NAMESAKE = (
    "it is another aggregate than the one that the service declares under this name, and they would fold each other's "
    "streams; import that one, or rename the other"
)


class StateCache:
    """Streams by id, the least recently used first; a stream that is absent is read when it is needed."""

    def __init__(
        self,
        snapshots: Snapshots,
        schema: Schema,
        capacity: int,
        keeper: Keeper | None = None,
        declared: Mapping[str, AnyAggregate] | None = None,
    ) -> None:
        """``capacity``: how many streams :meth:`evict` leaves. ``keeper``: keeps snapshots of what is committed.
        ``declared``: the aggregates that the log is to hold, by name; None: any."""
        self.schema = schema
        self.known: OrderedDict[StreamId, Entry] = OrderedDict()
        self.failed: dict[StreamId, StreamUnreadable] = {}
        """What the units of this batch hear that read one of these streams."""
        self.unreadable = UnreadableStreams()
        self._snapshots = snapshots
        self._reader = StreamReader(schema, snapshots)
        self._capacity = capacity
        self._keeper = keeper
        self._declared = declared
        self._said: set[str] = set()
        """Of which aggregates it was said that they are not those."""
        self._personal = personal = snapshots.personal
        self._erased: set[str] = set()
        """Whose streams are to be forgotten before the next batch: what is known of them is of before."""
        if personal:
            personal.known.on_erased.append(self._erased.add)

    def begin(self) -> None:
        """A new batch begins, in which every stream may be readable again."""
        self.failed.clear()
        if self._personal:
            self._personal.known.doubt()
        if self._erased:
            self._forget_erased()

    def assume_empty(self, refs: Iterable[StreamRef]) -> None:
        """Takes unknown streams for empty, which spares looking; the append finds out where that is wrong."""
        beginnings: dict[str, Entry] = {}
        for aggregate, id in refs:
            name = aggregate.name
            if name not in beginnings:
                beginnings[name] = self._beginning(aggregate)
            self.known.setdefault(known_stream((name, id)), beginnings[name])

    async def load(self, session: LogSession, refs: Iterable[StreamRef]) -> None:
        """Reads the streams that are unknown, unless they failed in this batch."""
        wanted = {known_stream((aggregate.name, id)): aggregate for aggregate, id in refs}
        missing = {
            stream: self.unreadable.so_far(stream) or self._beginning(aggregate)
            for stream, aggregate in wanted.items()
            if stream not in self.known and stream not in self.failed
        }
        await self._read(session, missing)

    def _beginning(self, aggregate: AnyAggregate) -> Entry:
        if self._declared is not None and self._declared.get(name := aggregate.name) is not aggregate:
            known = self._declared.get(name)
            if known != aggregate and name not in self._said:
                self._said.add(name)
                problem = _NAMESAKE if known else _UNDECLARED
                structlog.get_logger().warning("writer.undeclared_aggregate", aggregate=name, problem=problem)
        return beginning(aggregate)

    async def refresh(self, session: LogSession, streams: Sequence[StreamId]) -> None:
        """Brings known streams up to date; one that has not moved on is forgotten.

        That one was only read, or the log was set back to before what is known of it.
        """
        known = {stream: self.known[stream] for stream in streams if stream in self.known}
        await self._read(session, known, snapshots=False)
        for stream, entry in known.items():
            if stream in self.known and self.known[stream].version == entry.version:
                del self.known[stream]

    def keep(self, read: Iterable[StreamId], written: Mapping[StreamId, Entry]) -> None:
        """Keeps the streams of a committed batch: those written as they are now, and all as recently used."""
        if self._keeper:
            self._keeper.offer(self.known, written)
        self.known.update(written)
        self.known.update(self._snapshots.offer_all(written))
        for stream in read:
            self.known.move_to_end(stream)

    def _forget_erased(self) -> None:
        assert self._personal
        for stream, entry in list(self.known.items()):
            if self._personal.may_show(self._erased, stream, entry.aggregate):
                del self.known[stream]
        self._erased.clear()

    def clear(self) -> None:
        """Forgets all, and what was to be saved of it."""
        self.known.clear()
        self.unreadable.clear()
        self._snapshots.forget()
        if self._keeper:
            self._keeper.forget()

    def evict(self) -> None:
        """Forgets the least recently used streams beyond the capacity."""
        while len(self.known) > self._capacity:
            self.known.popitem(last=False)

    async def _read(
        self, session: LogSession, entries: Mapping[StreamId, Entry], *, snapshots: bool = True
    ) -> None:
        """Brings streams up to date from what is known of them."""
        for stream, result, unfit_snapshot in await self._reader.read(session, entries, snapshots=snapshots):
            if isinstance(result, Unreadable):
                self.known.pop(stream, None)
                self.failed[stream] = result.why
                self.unreadable.add(stream, result)
                continue
            self.unreadable.discard(stream)
            self.known[stream] = self._snapshots.replace(stream, result) if unfit_snapshot else result
