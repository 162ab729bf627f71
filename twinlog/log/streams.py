"""Reads streams: from a snapshot where one serves, else from the first event. Each stream fails by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from twinlog.log.past import KeepsSnapshots
from twinlog.log.ports import LogSession, ReadRequest, StreamSlice
from twinlog.log.snapshots import StateCodecs
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import (
    PartlyUnavailable,
    StreamUnreadable,
    TwinlogError,
    UndecodableEvent,
    UnknownEventType,
    UnknownSagaVersion,
    defect,
    named,
)
from twinlog.model.event import Recorded, StreamId
from twinlog.model.personal import holds_personal
from twinlog.model.schema import Schema
from twinlog.model.withheld import decides_personal, withheld


class Found(NamedTuple):
    """What came of reading a stream."""

    stream: StreamId
    result: Entry | Unreadable
    unfit_snapshot: bool = False
    """Whether it has a snapshot that does not serve."""


class _SnapshotUnfit(Exception):
    """A snapshot cannot be decoded, or the events after it do not follow from it."""


class StreamReader:
    """Reads and folds the streams of one log."""

    def __init__(self, schema: Schema, codecs: StateCodecs) -> None:
        """``codecs`` open personal fields, too, where they can."""
        self._schema = schema
        self._codecs = codecs

    async def read(
        self, session: LogSession, entries: Mapping[StreamId, Entry], *, snapshots: bool = True
    ) -> list[Found]:
        """Brings streams up to date from what is known of them: of one that is unknown, its :func:`beginning`.

        ``snapshots``: whether snapshots may stand for events; for streams whose newest events alone are missing, they
        are not worth looking for. Raises only what concerns all streams, such as Unavailable.
        """
        if not entries:
            return []
        schema_of = self._codecs.schema
        wanted = [
            ReadRequest(stream, at.version, schema_of(at.aggregate) if snapshots else "", to_fold=True)
            for stream, at in entries.items()
        ]
        found: list[Found] = []
        unfit: dict[StreamId, tuple[Entry, int]] = {}
        try:
            slices = await session.load(wanted)
        except PartlyUnavailable as error:
            return await self._read_apart(session, entries, snapshots, error)
        if personal := self._codecs.personal:
            keeping = [at.aggregate.keeps_personal for at in entries.values()]
            slices = await personal.opened_slices(slices, keeping)
        for (stream, at), slice in zip(entries.items(), slices, strict=True):
            try:
                found.append(Found(stream, await self._fold(at, slice)))
            except _SnapshotUnfit as error:
                self._codecs.ignore(stream, error)
                unfit[stream] = at, slice.snapshot.version - 1 if slice.snapshot else 0
        if not unfit:
            return found
        return found + [each._replace(unfit_snapshot=True) for each in await self._again(session, unfit)]

    async def _read_apart(
        self,
        session: LogSession,
        entries: Mapping[StreamId, Entry],
        snapshots: bool,
        error: PartlyUnavailable,
    ) -> list[Found]:
        """Each by itself, without its snapshot if need be: what is in an archive that is away, or on a damaged page,
        concerns no other stream."""
        if len(entries) > 1:
            return [
                found
                for stream, at in entries.items()
                for found in await self.read(session, {stream: at}, snapshots=snapshots)
            ]
        [(stream, at)] = entries.items()
        if snapshots:
            [found] = await self.read(session, entries, snapshots=False)
            if isinstance(found.result, Entry):
                self._codecs.ignore(stream, error)
            return [found._replace(unfit_snapshot=True)]
        why = StreamUnreadable(stream=stream, version=at.version + 1, why=error)
        why.__cause__ = error
        return [Found(stream, Unreadable(at, why))]

    async def _again(self, session: LogSession, unfit: Mapping[StreamId, tuple[Entry, int]]) -> list[Found]:
        """Reads streams whose newest snapshot does not serve, each from what is known, or from a kept snapshot up to a
        version; where that one does not serve either, from what is known."""
        starts = {
            stream: await self._kept(session, stream, at, upto) or at for stream, (at, upto) in unfit.items()
        }
        found = await self.read(session, starts, snapshots=False)
        broken = {each.stream: unfit[each.stream][0] for each in found if isinstance(each.result, Unreadable)}
        sound = [each for each in found if each.stream not in broken]
        return sound + await self.read(session, broken, snapshots=False)

    async def _kept(self, session: LogSession, stream: StreamId, at: Entry, upto: int) -> Entry | None:
        if not isinstance(session, KeepsSnapshots):
            return None
        nearest = await session.nearest(stream, self._codecs.schema(at.aggregate), upto)
        if nearest is None or nearest.snapshot.version <= at.version:
            return None
        try:
            return await self._codecs.entry(at.aggregate, nearest)
        except Exception as error:  # as in `_fold`
            self._codecs.ignore(stream, error)
            return None

    async def _fold(self, at: Entry, slice: StreamSlice) -> Entry | Unreadable:
        snapshot = slice.snapshot
        if snapshot is None:
            return fold(self._schema, at, slice.events)
        try:
            state = await self._codecs.restored(at.aggregate, snapshot)
        except Exception as error:  # what decodes a state may raise anything over bytes that are none
            raise _SnapshotUnfit(named(error)) from error
        restored = Entry(at.aggregate, state, snapshot.version, snapshot.position, snapshot.version)
        folded = fold(self._schema, restored, slice.events)
        why = folded.why if isinstance(folded, Unreadable) else None
        cause = why.__cause__ if why else None
        if cause and not isinstance(cause, TwinlogError):
            raise _SnapshotUnfit(str(why))  # the events are sound: it may be the snapshot that is not
        return folded


def fold(schema: Schema, at: Entry, events: Sequence[Recorded]) -> Entry | Unreadable:
    """A stream after more of its events."""
    aggregate, state, last = at.aggregate, at.state, None
    if lacking := _lacking(at.version, events):
        first = events[0]
        why = f"it is gone, and later ones are there; `twinlog repair {first.log} --dry-run` says what to do"
        return Unreadable(at, StreamUnreadable(stream=first.stream, version=lacking, why=why))
    for event in events:
        try:
            state = aggregate.fold(schema.decode(event), state)
        except (UnknownEventType, UnknownSagaVersion, UndecodableEvent) as error:
            return _unreadable(_after(at, state, last), event, str(error), error)
        except BaseException as error:  # an evolve that does not know the event, or not this state
            shown = withheld(
                defect(error), decides_personal(aggregate) or holds_personal(event.type, event.payload)
            )
            what = f"evolve fails over {event.type} ({event.address})"
            why = f"{what}: {named(shown)}; deploy a version that can bear it"
            return _unreadable(_after(at, state, last), event, why, shown)
        last = event
    return _after(at, state, last)


def _lacking(after: int, events: Sequence[Recorded]) -> int:
    """The first version that is not among the events after one, as where a row was taken out; 0: none."""
    if not events or events[-1].version == after + len(events):  # they are in order, each version once
        return 0
    return next((n for n, event in enumerate(events, after + 1) if event.version != n), 0)


def _after(at: Entry, state: Any, last: Recorded | None) -> Entry:
    """A stream after its event ``last``; None: as it was."""
    return Entry(at.aggregate, state, last.version, last.position, at.snapshot_version) if last else at


def beginning(aggregate: AnyAggregate) -> Entry:
    """A stream of which nothing is known."""
    return Entry(aggregate, aggregate.initial, 0, 0, 0)


def _unreadable(at: Entry, event: Recorded, why: str, error: BaseException) -> Unreadable:
    unreadable = StreamUnreadable(stream=event.stream, version=event.version, why=why)
    unreadable.__cause__ = error
    return Unreadable(at, unreadable)
