"""Reads streams: from a snapshot where one serves, else from the first event. Each stream fails by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from twinlog.log.personal import SEALED_STATE, Personal
from twinlog.log.ports import LogSession, ReadRequest, StreamSlice
from twinlog.log.snapshots import StateCodecs
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import StreamUnreadable, TwinlogError, UndecodableEvent, UnknownEventType
from twinlog.model.event import Recorded, StreamId
from twinlog.model.personal import decides_personal, holds_personal, withheld
from twinlog.model.schema import Schema


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

    def __init__(self, schema: Schema, codecs: StateCodecs, personal: Personal | None = None) -> None:
        """``personal`` opens personal fields; None: they stay as they are stored."""
        self._schema = schema
        self._codecs = codecs
        self._personal = personal

    async def read(
        self, session: LogSession, entries: Mapping[StreamId, Entry], *, snapshots: bool = True
    ) -> list[Found]:
        """Brings streams up to date from what is known of them: of one that is unknown, its :func:`beginning`.

        ``snapshots``: whether snapshots may stand for events; for streams whose newest events alone are missing, they
        are not worth looking for. Raises only what concerns all streams, such as Unavailable.
        """
        if not entries:
            return []
        schema_of = self._schema_of if snapshots else _no_schema
        wanted = [ReadRequest(stream, at.version, schema_of(at.aggregate)) for stream, at in entries.items()]
        found: list[Found] = []
        unfit: dict[StreamId, Entry] = {}
        slices = await session.load(wanted)
        if self._personal:
            slices = await self._personal.opened_slices(slices)
        for (stream, at), slice in zip(entries.items(), slices, strict=True):
            try:
                found.append(Found(stream, self._fold(at, slice)))
            except _SnapshotUnfit as error:
                self._codecs.ignore(stream, error)
                unfit[stream] = at
        again = await self.read(session, unfit, snapshots=False)
        return found + [each._replace(unfit_snapshot=True) for each in again]

    def _schema_of(self, aggregate: AnyAggregate) -> str:
        schema = self._codecs.schema(aggregate)
        personal = self._personal
        sealed = personal and aggregate.keeps_personal and personal.seals_state(aggregate.name)
        return f"{schema}{SEALED_STATE}" if sealed else schema

    def _fold(self, at: Entry, slice: StreamSlice) -> Entry | Unreadable:
        snapshot = slice.snapshot
        if snapshot is None:
            return fold(self._schema, at, slice.events)
        try:
            state = self._codecs.restore(at.aggregate, snapshot)
        except Exception as error:  # what decodes a state may raise anything over bytes that are none
            raise _SnapshotUnfit(_named(error)) from error
        restored = Entry(at.aggregate, state, snapshot.version, snapshot.position, snapshot.version)
        folded = fold(self._schema, restored, slice.events)
        if isinstance(folded, Unreadable) and not isinstance(folded.why.__cause__, TwinlogError):
            raise _SnapshotUnfit(
                str(folded.why)
            )  # the events are sound, so it may be the snapshot that is not
        return folded


def fold(schema: Schema, at: Entry, events: Sequence[Recorded]) -> Entry | Unreadable:
    """A stream after more of its events."""
    for event in events:
        try:
            state = at.aggregate.fold(schema.decode(event), at.state)
        except (UnknownEventType, UndecodableEvent) as error:
            return _unreadable(at, event, str(error), error)
        except Exception as raised:  # an evolve that does not know the event, or not this state
            personal = decides_personal(at.aggregate) or holds_personal(event.type, event.payload)
            shown = withheld(raised, personal)
            what = f"evolve fails over {event.type} ({event.address})"
            return _unreadable(
                at, event, f"{what}: {_named(shown)}; deploy a version that can bear it", shown
            )
        at = Entry(at.aggregate, state, event.version, event.position, at.snapshot_version)
    return at


def beginning(aggregate: AnyAggregate) -> Entry:
    """A stream of which nothing is known."""
    return Entry(aggregate, aggregate.initial, 0, 0, 0)


def _no_schema(_aggregate: AnyAggregate) -> str:
    return ""


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _unreadable(at: Entry, event: Recorded, why: str, error: BaseException) -> Unreadable:
    unreadable = StreamUnreadable(stream=event.stream, version=event.version, why=why)
    unreadable.__cause__ = error
    return Unreadable(at, unreadable)
