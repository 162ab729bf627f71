"""Pauses between batches: a busy task waits a little, so that its next batch is larger.

The cost of a batch hardly depends on its size, so fewer and larger batches leave room for everything else. A pause as
long as a few batches is short on an idle machine and longer on a busy one. A single pending item is never delayed,
except in a task whose results nobody waits for: that one may pause after every batch.
"""

from __future__ import annotations

import asyncio

_PAUSE_IN_BATCHES = 3
_LONGEST_PAUSE_SECONDS = 0.01


class Linger:
    """The pauses of one task."""

    def __init__(self, behind: Linger | None = None, *, least: float = 0.0) -> None:
        """``behind``: the task that this one waits for in each batch; a batch that it already paused for is not
        delayed again.

        ``least``: seconds to pause after every batch that is not full, even when nothing is waiting yet.
        """
        self._behind = behind
        self._least = least
        self._paused_at = 0.0

    async def wait(self, began: float, waiting: int, full: int) -> None:
        """Pauses after a batch that began at ``began`` (loop time) if fewer than a ``full`` batch are ``waiting``.

        While something is waiting: three times as long as the batch took, and at most 10 ms.
        """
        loop = asyncio.get_running_loop()
        if waiting >= full or (self._behind and self._behind._paused_at >= began):
            return
        seconds = min(_PAUSE_IN_BATCHES * (loop.time() - began), _LONGEST_PAUSE_SECONDS) if waiting else 0.0
        if seconds := max(seconds, self._least):
            await asyncio.sleep(seconds)
            self._paused_at = loop.time()
