"""Rests between batches: a busy task waits a little, so that more comes together in its next batch.

What a batch costs hardly depends on its size. Fewer and larger ones make room for everything else, and a rest as long
as a few batches take is short on an idle machine and longer on a busy one. Who comes alone never waits, except for a
task that nobody waits for: that may rest after every batch.
"""

from __future__ import annotations

import asyncio

_BATCHES = 3
_MOST = 0.01


class Linger:
    """The rests of one task."""

    def __init__(self, behind: Linger | None = None, *, least: float = 0.0) -> None:
        """``behind``: the pace of whom its batches wait for; nobody rests twice for one batch.

        ``least``: seconds to rest after every batch that is not full, also where nothing waits yet.
        """
        self._behind = behind
        self._least = least
        self._rested_at = 0.0

    async def wait(self, began: float, waiting: int, full: int) -> None:
        """Rests after a batch that began then, in the loop's time, where ``waiting`` is less than a ``full`` batch.

        Where something waits: three times as long as the batch took, and at most 10 ms.
        """
        loop = asyncio.get_running_loop()
        if waiting >= full or (self._behind and self._behind._rested_at >= began):
            return
        seconds = min(_BATCHES * (loop.time() - began), _MOST) if waiting else 0.0
        if seconds := max(seconds, self._least):
            await asyncio.sleep(seconds)
            self._rested_at = loop.time()
