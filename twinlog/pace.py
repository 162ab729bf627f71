"""Rests between batches: a busy task waits a little, so that more comes together in its next batch.

What a batch costs hardly depends on its size. Fewer and larger ones make room for everything else, and a rest as long
as a few batches take is short on an idle machine and longer on a busy one. Who comes alone never waits.
"""

from __future__ import annotations

import asyncio

_BATCHES = 3
_MOST = 0.01


class Pace:
    """The rests of one task."""

    def __init__(self, behind: Pace | None = None) -> None:
        """``behind``: the pace of whom its batches wait for. Nobody rests twice for one batch."""
        self._behind = behind
        self._rested_at = 0.0

    async def rest(self, began: float) -> None:
        """Rests after a batch that began then, in the loop's time: three times as long as it took, and at most 10 ms.

        To be called only where more waits already, and not yet enough for a full batch.
        """
        loop = asyncio.get_running_loop()
        if self._behind and self._behind._rested_at >= began:
            return
        await asyncio.sleep(min(_BATCHES * (loop.time() - began), _MOST))
        self._rested_at = loop.time()
