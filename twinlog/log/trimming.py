"""Streams that begin later than their logs: what comes before is archived, and was handled by every consumer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from twinlog.log.ports import Log


@runtime_checkable
class TrimmedLog(Protocol):
    """A log that knows how far its stream may be empty."""

    async def trimmed(self) -> int:
        """The position up to which the stream is trimmed; 0: it has every event."""


async def trimmed(log: Log) -> int:
    """How far the stream of a log is trimmed; 0 where that is not known."""
    return max(await log.trimmed(), 0) if isinstance(log, TrimmedLog) else 0
