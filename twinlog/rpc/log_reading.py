"""Looks through a log for who inspects it, and follows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from twinlog._aio.tasks import to_its_end
from twinlog.log import scan
from twinlog.log.ports import Log
from twinlog.model.event import Recorded

_LOOK_EVERY_SECONDS = 0.25
_LOOKS_APART_SECONDS = 0.1
"""The least time between two looks of those who follow a log: they share them, however many they are."""
_PAGES = 16
"""Of what came last, kept for those who follow a log; who is slow has pages of its own."""


class End:
    """The end of a log for all who follow it: they share looks at its head, and what came last."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._look: asyncio.Future[int] | None = None
        self._next = 0.0
        self._head = 0
        self._last: dict[int, asyncio.Future[Sequence[Recorded]]] = {}
        """By position, what came after it up to the head or later."""

    async def now(self) -> int:
        """The head, as of 0.1 s ago, or later. Raises Unavailable."""
        time = asyncio.get_running_loop().time()
        if self._look is None or (self._look.done() and time >= self._next):
            self._look, self._next = asyncio.ensure_future(self._moved()), time + _LOOKS_APART_SECONDS
        return await to_its_end(self._look)

    async def _moved(self) -> int:
        head = await self._log.head()
        if head != self._head:
            self._head = head
            self._last.clear()
        return head

    async def after(self, position: int) -> Sequence[Recorded]:
        """A page of the events after a position; of those up to the head none is missing. Raises Unavailable."""
        if position not in self._last:
            if len(self._last) >= _PAGES:
                self._last.clear()
            self._last[position] = asyncio.ensure_future(self._log.read(position, scan.PAGE))
        page = self._last[position]
        try:
            return await to_its_end(page)
        except Exception:
            if self._last.get(position) is page:
                del self._last[position]
            raise


class Reading:
    """One look through the log, and how far it came."""

    def __init__(self, log: Log, wanted: scan.Filter, after: int) -> None:
        self.position = after
        self.complete = True
        """Whether all that was asked for was given."""
        self._log = log
        self._wanted = wanted

    async def newest(self, count: int, upto: int) -> AsyncIterator[Recorded]:
        """The newest events up to a position."""
        events, self.complete = await scan.newest(self._log, self._wanted, count, self.position, upto)
        for event in events:
            yield event
        self.position = max(self.position, upto)

    async def range(self, upto: int, limit: int) -> AsyncIterator[Recorded]:
        """At most so many events, up to a position."""
        if self._wanted.since:
            self.position = max(self.position, await scan.first_at(self._log, self._wanted.since, upto))
        began = self.position
        async for page in scan.pages(self._log, self._wanted, began, upto):
            for event in page.events:
                if not limit:
                    self.complete = False
                    return
                yield event
                self.position, limit = event.position, limit - 1
            self.position = max(self.position, page.position)
            if page.position - began >= scan.MOST_LOOKED_AT and page.position < upto:
                self.complete = False
                return

    async def to_come(self, upto: int, end: End) -> AsyncIterator[Recorded]:
        """Events as they are committed, until the caller has enough."""
        while self.position < upto:
            head = min(await end.now(), upto)
            if 0 < head - self.position <= scan.PAGE:
                for event in await end.after(self.position):
                    if event.position <= head and self._wanted.fits(event):
                        yield event
                self.position = head
            async for page in scan.pages(self._log, self._wanted, self.position, head):
                for event in page.events:
                    yield event
                self.position = max(self.position, page.position)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
