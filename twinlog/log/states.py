"""The cache of states: streams as this process knows them, read again when they turn out to be stale."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from twinlog.log.ports import LogSession, ReadRequest
from twinlog.log.snapshots import Snapshots
from twinlog.log.transaction import Entry
from twinlog.log.units import StreamRef
from twinlog.model.event import StreamId
from twinlog.model.schema import Schema


class StateCache:
    """Streams by id, the least recently used first; a stream that is absent is read when it is needed."""

    def __init__(self, snapshots: Snapshots, schema: Schema, capacity: int) -> None:
        """``capacity``: how many streams :meth:`evict` leaves."""
        self.known: OrderedDict[StreamId, Entry] = OrderedDict()
        self._snapshots = snapshots
        self._schema = schema
        self._capacity = capacity

    def assume_empty(self, refs: Iterable[StreamRef]) -> None:
        """Takes unknown streams for empty, which spares looking; the append finds out where that is wrong."""
        for aggregate, id in refs:
            self.known.setdefault(StreamId(aggregate.name, id), Entry(aggregate, aggregate.initial, 0, 0, 0))

    async def load(self, session: LogSession, refs: Iterable[StreamRef]) -> None:
        """Reads the streams that are unknown."""
        wanted = {StreamId(aggregate.name, id): aggregate for aggregate, id in refs}
        missing = {stream: of for stream, of in wanted.items() if stream not in self.known}
        await self._read(session, {s: Entry(of, of.initial, 0, 0, 0) for s, of in missing.items()})

    async def refresh(self, session: LogSession, streams: Sequence[StreamId]) -> None:
        """Brings known streams up to date; one that has not moved on is forgotten.

        That one was only read, or the log was set back to before what is known of it.
        """
        known = {stream: self.known[stream] for stream in streams if stream in self.known}
        await self._read(session, known)
        for stream, entry in known.items():
            if self.known[stream].version == entry.version:
                del self.known[stream]

    def keep(self, read: Iterable[StreamId], written: Mapping[StreamId, Entry]) -> None:
        """Keeps the streams of a committed batch: those written as they are now, and all as recently used."""
        for stream, entry in written.items():
            self.known[stream] = self._snapshots.offer(stream, entry)
        for stream in read:
            self.known.move_to_end(stream)

    def clear(self) -> None:
        """Forgets all, and what was to be saved of it."""
        self.known.clear()
        self._snapshots.forget()

    def evict(self) -> None:
        """Forgets the least recently used streams beyond the capacity."""
        while len(self.known) > self._capacity:
            self.known.popitem(last=False)

    async def _read(self, session: LogSession, from_entries: Mapping[StreamId, Entry]) -> None:
        """Brings streams up to date from what is known of them, or from a snapshot if nothing is known."""
        if not from_entries:
            return
        wanted = [
            ReadRequest(
                stream, entry.version, "" if entry.version else self._snapshots.codec(entry.aggregate).schema
            )
            for stream, entry in from_entries.items()
        ]
        histories = await session.load(wanted)
        for (stream, entry), (snapshot, events) in zip(from_entries.items(), histories, strict=True):
            if snapshot:
                state = self._snapshots.restore(entry.aggregate, snapshot)
                entry = Entry(entry.aggregate, state, snapshot.version, snapshot.position, snapshot.version)
            for event in events:
                state = entry.aggregate.fold(self._schema.decode(event), entry.state)
                entry = entry._replace(state=state, version=event.version, position=event.position)
            self.known[stream] = entry
