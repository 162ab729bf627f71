"""The past of a log in Postgres, part of which may be in its archive."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from twinlog.log.past import CausedAt, Moment
from twinlog.log.ports import ReadRequest, StreamSlice
from twinlog.model.event import Recorded, StreamId
from twinlog.postgres.archive import Archive
from twinlog.postgres.connection import fetch
from twinlog.postgres.past import PostgresPast

_VERSION_BITS, _POSITION_BITS = 31, 41
_CAUSE = re.compile(r"([^/]+)/([0-9]{1,18})")


class ArchivedPast(PostgresPast):
    """Answers of SQL where the table has all; else event by event, or with those of the archive besides.

    The table is always asked first, and where the archive ends only then: what has left the table is in the archive by
    then, also while ranges move there.
    """

    archive: Archive

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        raise NotImplementedError

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        raise NotImplementedError

    async def archived_upto(self) -> int:
        """The end of the archive; 0: there is none."""
        return int((await self._ask("archived_upto"))[0][0])

    async def trimmed(self) -> int:
        """The position up to which the stream is trimmed; 0: it has every event."""
        rows = await self._ask("trimmed")
        return int(rows[0][0]) if rows else 0

    async def version_at(self, stream: StreamId, moment: Moment) -> int:
        time, version = moment.time, await super().version_at(stream, moment)
        if time is None or not (await self._ask("is_archived", *stream))[0][0]:
            return version

        async def by_then(version: int) -> bool:
            ((_, events),) = await self.load([ReadRequest(stream, version - 1, upto=version)])
            return bool(events) and events[0].recorded_at <= time

        return await _halved(_VERSION_BITS, by_then)

    async def position_at(self, time: datetime) -> int:
        found = await super().position_at(time)
        if not await self.archived_upto():
            return found

        async def by_then(position: int) -> bool:
            events = await self.read(position - 1, 1)
            return bool(events) and events[0].position == position and events[0].recorded_at <= time

        return await _halved(_POSITION_BITS, by_then)

    async def mark_causes(self, position: int, causes: Mapping[str, int]) -> None:
        for event in await self.read(position - 1, 1):
            await self._ask("mark_causes", position, causes, event.event_id)

    async def causes_between(self, after: int, upto: int) -> Mapping[str, int]:
        last: dict[str, int] = dict(await super().causes_between(after, upto))
        async for caused in self._archived_causes(after, upto):
            last[caused.log] = max(last.get(caused.log, 0), caused.cause)
        return last

    async def causes_of(self, after: int, upto: int) -> Sequence[CausedAt]:
        found = {*await super().causes_of(after, upto)}
        async for caused in self._archived_causes(after, upto):
            found.add(caused)
        return sorted(found)

    async def _archived_causes(self, after: int, upto: int) -> AsyncIterator[CausedAt]:
        async for events in self.archive.pages(self._query, after, min(upto, await self.archived_upto())):
            for event in events:
                if match := _CAUSE.fullmatch(event.metadata.causation_id):
                    yield CausedAt(event.position, match[1], int(match[2]))

    async def _query(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        return await fetch(self.pool, query, *arguments)


async def _halved(bits: int, by_then: Callable[[int], Awaitable[bool]]) -> int:
    """As the statements do it: the same numbers are asked for, so the answer is the same."""
    at = 0
    for bit in reversed(range(bits)):
        if await by_then(at + (1 << bit)):
            at += 1 << bit
    return at
