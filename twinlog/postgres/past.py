"""The past of a log in Postgres, part of which may be in its archive (:mod:`twinlog.log.past`)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import asyncpg

from twinlog.log.past import CausedAt, KeptKey, KeptRow, KeptSnapshot, Moment, Nearest, RowKey
from twinlog.log.ports import ReadRequest, Snapshot, StreamSlice
from twinlog.model.event import MOST_POSITION, MOST_VERSION, Recorded, StreamId, known_stream
from twinlog.postgres.archive import Archive
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.named_queries import QUERIES

_VERSION_BITS, _POSITION_BITS = 31, 41
_CAUSE = re.compile(r"([^/]+)/([0-9]{1,18})")


class PostgresPast:
    """What a log in Postgres knows of its past: by SQL where the table has all, else with what the archive has besides.

    The table is always asked first, and where the archive ends only then: what has left the table is in the archive by
    then, also while ranges move there.
    """

    pool: Pool
    archive: Archive

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        raise NotImplementedError

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        raise NotImplementedError

    async def archived_upto(self) -> int:
        """The end of the archive; 0: there is none."""
        return int((await self._ask("archived_upto"))[0][0])

    async def trimmed(self) -> int:
        rows = await self._ask("trimmed")
        return int(rows[0][0]) if rows else 0

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        if snapshots:
            rows = [(*stream, *place, crc32(state), state) for stream, *place, state in snapshots]
            await self._ask("keep_snapshots", *zip(*rows, strict=True))

    async def nearest(self, stream: StreamId, schema: str, upto: int) -> Nearest | None:
        for version, position, stored, state, checksum in await self._ask(
            "nearest_snapshot", *stream, schema, upto
        ):
            return Nearest(Snapshot(stream, version, position, stored, state), checksum)
        return None

    async def kept(self, type: str, id: str, after: KeptKey, limit: int) -> Sequence[KeptSnapshot]:
        rows = await self._ask("kept_snapshots", type, id, *after, limit)
        return [KeptSnapshot(known_stream((row[0], row[1])), *row[2:]) for row in rows]

    async def drop_kept(self, type: str, id: str = "", *, but_multiples_of: int = 0) -> int:
        return int((await self._ask("drop_kept_snapshots", type, id, but_multiples_of))[0][0])

    async def long_streams(self, type: str, version: int) -> Sequence[str]:
        return [row[0] for row in await self._ask("long_streams", type, version)]

    async def keep_row(self, key: RowKey, kept: KeptRow) -> None:
        await self._ask("keep_row", *key, *kept)

    async def nearest_row(self, key: RowKey, schema: str, upto: Moment) -> KeptRow | None:
        time = upto.time or datetime.max.replace(tzinfo=UTC)
        version, position = upto.version or MOST_VERSION, upto.position or MOST_POSITION
        rows = await self._ask("nearest_row", *key, schema, version, position, time)
        return KeptRow(*rows[0]) if rows else None

    async def drop_rows(self, view: str, stream: str = "") -> int:
        return int((await self._ask("drop_kept_rows", view, stream))[0][0])

    async def version_at(self, stream: StreamId, moment: Moment) -> int:
        time = moment.time
        if time is None:
            return int((await self._ask("version_at_position", *stream, moment.position))[0][0])
        version = int((await self._ask("version_at_time", *stream, time))[0][0])
        if not (await self._ask("is_archived", *stream))[0][0]:
            return version

        async def by_then(version: int) -> bool:
            ((_, events),) = await self.load([ReadRequest(stream, version - 1, upto=version)])
            return bool(events) and events[0].recorded_at <= time

        return await _halved(_VERSION_BITS, by_then)

    async def position_at(self, time: datetime) -> int:
        found = int((await self._ask("position_at_time", time))[0][0])
        if not await self.archived_upto():
            return found

        async def by_then(position: int) -> bool:
            events = await self.read(position - 1, 1)
            return bool(events) and events[0].position == position and events[0].recorded_at <= time

        return await _halved(_POSITION_BITS, by_then)

    async def causes_between(self, after: int, upto: int) -> Mapping[str, int]:
        last: dict[str, int] = {row[0]: row[1] for row in await self._ask("causes_between", after, upto)}
        async for caused in self._archived_causes(after, upto):
            last[caused.log] = max(last.get(caused.log, 0), caused.cause)
        return last

    async def causes_of(self, after: int, upto: int) -> Sequence[CausedAt]:
        found: set[CausedAt] = set()
        for position, cause in await self._ask("causes_of", after, upto):
            log, _, at = cause.partition("/")
            found.add(CausedAt(position, log, int(at)))
        async for caused in self._archived_causes(after, upto):
            found.add(caused)
        return sorted(found)

    async def _archived_causes(self, after: int, upto: int) -> AsyncIterator[CausedAt]:
        async for events in self.archive.pages(self._query, after, min(upto, await self.archived_upto())):
            for event in events:
                if match := _CAUSE.fullmatch(event.metadata.causation_id):
                    yield CausedAt(event.position, match[1], int(match[2]))

    async def causal_marks(self) -> Sequence[tuple[int, Mapping[str, int]]]:
        return [(row[0], row[1]) for row in await self._ask("causal_marks")]

    async def mark_causes(self, position: int, causes: Mapping[str, int]) -> None:
        for event in await self.read(position - 1, 1):
            await self._ask("mark_causes", position, causes, event.event_id)

    async def _ask(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await fetch(self.pool, QUERIES[query], *arguments)

    async def _query(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await fetch(self.pool, query, *arguments)


async def _halved(bits: int, by_then: Callable[[int], Awaitable[bool]]) -> int:
    """As the statements do it: the same numbers are asked for, so the answer is the same."""
    at = 0
    for bit in reversed(range(bits)):
        if await by_then(at + (1 << bit)):
            at += 1 << bit
    return at
