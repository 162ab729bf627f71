"""The past of a log in Postgres: kept snapshots, moments and causes (:mod:`twinlog.log.past`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import asyncpg

from twinlog.log.past import CausedAt, KeptKey, KeptRow, KeptSnapshot, Moment, Nearest, RowKey
from twinlog.log.ports import Snapshot
from twinlog.model.event import StreamId, known_stream
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.named_queries import QUERIES

_MOST_VERSION, _MOST_POSITION = 2**31 - 1, 2**63 - 1


class PostgresPast:
    """What a log in Postgres knows of its past."""

    pool: Pool

    async def keep(self, snapshots: Sequence[Snapshot]) -> None:
        await self._ask(
            "keep_snapshots",
            [each.stream.type for each in snapshots],
            [each.stream.id for each in snapshots],
            [each.version for each in snapshots],
            [each.position for each in snapshots],
            [each.schema for each in snapshots],
            [crc32(each.state) for each in snapshots],
            [each.state for each in snapshots],
        )

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
        version, position = upto.version or _MOST_VERSION, upto.position or _MOST_POSITION
        rows = await self._ask("nearest_row", *key, schema, version, position, time)
        return KeptRow(*rows[0]) if rows else None

    async def drop_rows(self, view: str, stream: str = "") -> int:
        return int((await self._ask("drop_kept_rows", view, stream))[0][0])

    async def version_at(self, stream: StreamId, moment: Moment) -> int:
        if moment.time is None:
            rows = await self._ask("version_at_position", *stream, moment.position)
        else:
            rows = await self._ask("version_at_time", *stream, moment.time)
        return int(rows[0][0])

    async def position_at(self, time: datetime) -> int:
        return int((await self._ask("position_at_time", time))[0][0])

    async def causes_between(self, after: int, upto: int) -> Mapping[str, int]:
        return {row[0]: row[1] for row in await self._ask("causes_between", after, upto)}

    async def causes_of(self, after: int, upto: int) -> Sequence[CausedAt]:
        found = []
        for position, cause in await self._ask("causes_of", after, upto):
            log, _, at = cause.partition("/")
            found.append(CausedAt(position, log, int(at)))
        return found

    async def causal_marks(self) -> Sequence[tuple[int, Mapping[str, int]]]:
        return [(row[0], row[1]) for row in await self._ask("causal_marks")]

    async def _ask(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await fetch(self.pool, QUERIES[query], *arguments)
