"""Rests between batches: a busy task waits a little, so that more comes together in its next batch.

What a batch costs hardly depends on its size. Fewer and larger ones make room for everything else, and a rest as long
as a few batches take is short on an idle machine and longer on a busy one. Who comes alone never waits.
"""

from __future__ import annotations

import asyncio

_BATCHES = 3
_MOST = 0.01


async def rest(took: float) -> None:
    """Rests after a batch that took so many seconds: three times as long, and at most 10 ms.

    To be called only where more waits already, and not yet enough for a full batch.
    """
    await asyncio.sleep(min(_BATCHES * took, _MOST))
