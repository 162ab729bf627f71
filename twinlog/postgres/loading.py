"""Streams as they are loaded: snapshots, the events after them, and what of those is in the archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg
from pydantic_core import to_json

from twinlog.log.archive import ArchiveDamaged
from twinlog.log.ports import ReadRequest, Snapshot, StreamSlice
from twinlog.log.texts import refuse_ids
from twinlog.model.event import Metadata, Recorded, StreamId, known_recorded, known_stream
from twinlog.postgres.archive import Archive, Fetch
from twinlog.postgres.codecs import Connection
from twinlog.postgres.named_queries import QUERIES

REFUSED = (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError)
"""What is raised where a value is none of Postgres'."""
_TEXTS = Metadata._fields[:-1]
_NO_ID, _NOTHING, _NEVER = UUID(int=0), Metadata(), datetime.min.replace(tzinfo=UTC)
"""What an event has that is only folded."""


def recorded(log: str, position: int, stream: StreamId, row: Sequence[Any]) -> Recorded:
    """The event in the rest of a row."""
    version, event_id, type, payload, metadata, partition_key, routing_key, recorded_at, extra = row
    parts = log, position, stream, version, event_id, type, payload
    known = metadata_of(metadata, extra)
    return known_recorded((*parts, known, partition_key, routing_key, recorded_at))


def metadata_of(stored: Any, extra: Any = None) -> Metadata:
    """What is known of an event, by the names under which it is stored; the rest is a newer program's.

    What is no text, as another program may have written it, is read as the JSON that it is: it concerns nobody else.
    """
    if not isinstance(stored, dict):
        stored = {"actor": stored}
    if not isinstance(extra, dict | None):
        extra = {"extra": extra}
    texts = [_text(stored.get(name, "")) for name in _TEXTS]
    return Metadata._make([*texts, {name: _text(value) for name, value in (extra or {}).items()}])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value).decode()


class Loaded(NamedTuple):
    """What the database has of some streams."""

    snapshots: Mapping[StreamId, Snapshot]
    rows: Sequence[asyncpg.Record]
    to_fold: bool
    """Whether the rows have only what a fold takes."""


async def load(connection: Connection, wanted: Sequence[ReadRequest]) -> Loaded:
    """What the database has of the requested streams. Raises Unstorable for an id that no log keeps."""
    try:
        snapshots = await _snapshots(connection, [want for want in wanted if want.schema])
        after = [
            snapshots[want.stream].version if want.stream in snapshots else want.after for want in wanted
        ]
        to_fold = all(want.to_fold for want in wanted)
        rows = await connection.fetch(
            QUERIES["histories_to_fold" if to_fold else "histories"],
            [want.stream.type for want in wanted],
            [want.stream.id for want in wanted],
            after,
            [want.upto for want in wanted],
        )
        return Loaded(snapshots, rows, to_fold)
    except REFUSED:
        refuse_ids([want.stream for want in wanted])
        raise


async def slices(
    found: Loaded, log: str, archive: Archive, wanted: Sequence[ReadRequest], fetch: Fetch
) -> Sequence[StreamSlice]:
    """The requested streams, from what the database has of them and from the archive. Raises ArchiveDamaged."""
    snapshots, rows, to_fold = found
    events: list[list[Recorded]] = [[] for _ in wanted]
    archived: dict[int, list[int]] = {}
    for row in rows:
        index = row[0] - 1
        stream = wanted[index].stream
        if row[-1] is not None:
            archived.setdefault(index, []).extend(row[-1])
        elif to_fold:
            events[index].append(_to_fold(log, stream, row[:5]))
        else:
            events[index].append(recorded(log, row[1], stream, row[2:11]))
    if archived:
        await _add_archived(events, archived, log, archive, found, wanted, fetch)
    return [
        StreamSlice(snapshots.get(want.stream), of_one) for want, of_one in zip(wanted, events, strict=True)
    ]


async def _add_archived(
    events: Sequence[list[Recorded]],
    archived: Mapping[int, Sequence[int]],
    log: str,
    archive: Archive,
    found: Loaded,
    wanted: Sequence[ReadRequest],
    fetch: Fetch,
) -> None:
    """Adds the events of some streams that are in the archive, by their positions."""
    old = await archive.at(fetch, {position for each in archived.values() for position in each})
    for index, positions in archived.items():
        want = wanted[index]
        snapshot = found.snapshots.get(want.stream)
        after = snapshot.version if snapshot else want.after
        more = [old[position] for position in positions]
        events[index] += [event for event in more if after < event.version <= want.upto]
        events[index].sort(key=lambda event: event.version)
        _check_archived(log, want.stream, after, more, events[index])


def _check_archived(
    log: str, stream: StreamId, after: int, archived: Sequence[Recorded], events: Sequence[Recorded]
) -> None:
    """Raises ArchiveDamaged where a stream would be folded with another's events, or without one of its own."""
    why = ""
    for event in archived:
        if event.stream != stream:
            why = f"it names event {event.position} for {stream}, and that is of {event.stream}"
    for version, event in enumerate(events, after + 1):
        if not why and event.version != version:
            why = f"it names no event {min(version, event.version)} of {stream}, or several"
    if why:
        first, last = archived[0].position, archived[-1].position
        raise ArchiveDamaged(log=log, first=first, last=last, file="table archived_streams", why=why)


def _to_fold(log: str, stream: StreamId, row: Sequence[Any]) -> Recorded:
    _, position, version, type, payload = row
    return known_recorded((log, position, stream, version, _NO_ID, type, payload, _NOTHING, "", "", _NEVER))


async def _snapshots(connection: Connection, wanted: Sequence[ReadRequest]) -> dict[StreamId, Snapshot]:
    if not wanted:
        return {}
    rows = await connection.fetch(
        QUERIES["snapshots"],
        [want.stream.type for want in wanted],
        [want.stream.id for want in wanted],
        [want.schema for want in wanted],
    )
    after = {want.stream: want.after for want in wanted}
    found = (Snapshot(known_stream((row[0], row[1])), *row[2:]) for row in rows)
    return {snapshot.stream: snapshot for snapshot in found if snapshot.version > after[snapshot.stream]}
