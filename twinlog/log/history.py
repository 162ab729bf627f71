"""The history of a log as other services ask for it: what a stream held, where a moment lies, what caused what."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from twinlog.log.past import FindsMoments, KnowsCauses, Moment
from twinlog.log.ports import Log
from twinlog.log.scan import version_at, versions
from twinlog.model.errors import FailedPrecondition
from twinlog.model.event import Recorded, StreamId

Cut = Mapping[str, int]
"""A position of each log."""
MARK_EVERY = 1_000
"""Positions between two places at which causes are remembered."""


class OtherHistory(FailedPrecondition):
    """Stream {stream} has another event at version {version} than the one that was named: read it from the first."""

    reason = "OTHER_HISTORY"


class At(NamedTuple):
    """A place in a log."""

    position: int
    recorded_at: datetime | None
    """When the event there was recorded; None: there is none."""
    next_at: datetime | None
    """When the next event was recorded; None: there is none yet."""


class History(Protocol):
    """The history of one log, here or elsewhere. Its methods raise Unavailable."""

    @property
    def name(self) -> str:
        """The log."""

    def events(
        self, stream: StreamId, moment: Moment, after: int = 0, after_id: UUID | None = None
    ) -> AsyncIterator[Sequence[Recorded]]:
        """The events of a stream up to a moment, after a version.

        Raises OtherHistory where that version has another id, or lies beyond the moment.
        """

    async def at(self, time: datetime | None) -> At:
        """Where it ended at a time; None: where it ends now."""

    async def place(self, position: int) -> At:
        """A position of it, or its last one, if that comes first."""

    async def causes(self, upto: int) -> Cut:
        """Of each other log, the last event that caused any of the events up to a position."""

    async def closed(self, cut: Cut) -> int:
        """How much of it can be in a cut at most, so that the cause of every event is in the cut, too."""


class LogHistory:
    """The history of a log that this process has."""

    def __init__(self, log: Log) -> None:
        self._log = log

    @property
    def name(self) -> str:
        return self._log.name

    async def events(
        self, stream: StreamId, moment: Moment, after: int = 0, after_id: UUID | None = None
    ) -> AsyncIterator[Sequence[Recorded]]:
        upto = await version_at(self._log, stream, moment)
        compared = after_id is None or after == 0
        async for events in versions(self._log, stream, upto, after=after if compared else after - 1):
            if not compared:
                if events[0].event_id != after_id:
                    break
                events, compared = events[1:], True
            if events:
                yield events
        if not compared:
            raise OtherHistory(stream=str(stream), version=after)

    async def at(self, time: datetime | None) -> At:
        if time is None:
            return await self.place(await self._log.head())
        if isinstance(self._log, FindsMoments):
            return await self.place(await self._log.position_at(time))
        raise NotImplementedError(f"log {self._log.name} finds no moments")

    async def place(self, position: int) -> At:
        position = min(position, await self._log.head())
        around = await self._log.read(max(0, position - 1), 2)
        there = around[0].recorded_at if position else None
        following = around[1:] if position else around
        return At(position, there, following[0].recorded_at if following else None)

    async def causes(self, upto: int) -> Cut:
        if not isinstance(self._log, KnowsCauses):
            return {}
        upto = min(upto, await self._log.head())
        marks = [mark for mark in await self._marked(upto) if mark[0] <= upto]
        position, known = marks[-1] if marks else (0, {})
        found = _later(known, await self._log.causes_between(position, upto))
        return {log: position for log, position in found.items() if log != self._log.name}

    async def closed(self, cut: Cut) -> int:
        upto = min(cut[self._log.name], await self._log.head())
        if not isinstance(self._log, KnowsCauses):
            return upto
        marks = await self._marked(upto)
        within = bisect_right(marks, 0, key=lambda mark: mark[0] > upto or _is_beyond(mark[1], cut))
        after = marks[within - 1][0] if within else 0
        end = min(upto, marks[within][0]) if within < len(marks) else upto
        for caused in await self._log.causes_of(after, end):
            if caused.log != self._log.name and caused.cause > cut.get(caused.log, caused.cause):
                return caused.position - 1
        return end

    async def _marked(self, upto: int) -> Sequence[tuple[int, Cut]]:
        """What is remembered of the causes in the log, up to a position at least; what is not yet is found out."""
        assert isinstance(self._log, KnowsCauses)
        marks = [*await self._log.causal_marks()]
        last, known = marks[-1] if marks else (0, {})
        while last + MARK_EVERY <= upto:
            known = _later(known, await self._log.causes_between(last, last + MARK_EVERY))
            last += MARK_EVERY
            await self._log.mark_causes(last, known)
            marks.append((last, known))
        return marks


def _later(first: Cut, second: Cut) -> Cut:
    """Of each log, the later position of two."""
    return {log: max(first.get(log, 0), second.get(log, 0)) for log in {*first, *second}}


def _is_beyond(causes: Cut, cut: Cut) -> bool:
    """Whether one of the causes is not in a cut. Of logs that are not cut, all are."""
    return any(position > cut.get(log, position) for log, position in causes.items())
