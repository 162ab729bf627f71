"""Reading every event of a range, for what is kept apart from the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from twinlog.model.errors import Unavailable
from twinlog.model.event import Recorded
from twinlog.postgres.log import PostgresLog

_PAGE = 2_000


async def whole_pages(log: PostgresLog, after: int, upto: int) -> AsyncIterator[Sequence[Recorded]]:
    """The events after one position and up to another, page by page.

    Raises Unavailable where one of them is gone: lost, or while the log is being set back.
    """
    while after < upto:
        events = await log.read(after, min(_PAGE, upto - after))
        for event in events:
            if event.position != after + 1:
                break
            after = event.position
        if not events or events[-1].position != after:
            raise Unavailable(f"log {log.name} has no event {after + 1}; `twinlog audit` says more")
        yield events
