"""Pages as streams of server-sent events: each URL is loaded once for all who watch it, while somebody does.

That is once a second; less often while no service tells of anything new, or while nothing new is found; at once when a
service falls silent or answers again.

An event ``page`` has the parts of a page that changed, as HTML; its id names that state, so that a browser that comes
back is sent what it has missed, or nothing. An event ``tick`` says that the stream is alive.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

from twinlog.console.looks import Looking

EVERY_SECONDS = 1.0
_STILL, _MOST_SLOWER = 2, 3
"""A page at which so many loads have found nothing new is loaded at half the rate, and so on, up to a third."""
_REST_SECONDS = 3.0
"""It is loaded that often even if nothing that a service says of itself has changed."""
_TICK_SECONDS = 2.0
_MOST_STREAMS = 256
_TIMES = re.compile(r"(?<=>)[^<]*(?=</time>)")
_LINE_END = re.compile(r"\r\n|\r|\n")

Render = Callable[[], Awaitable[str]]
"""Loads a page and renders its parts; raises nothing that is about the page."""


class TooMany(Exception):
    """As many streams are open as may be."""


def tag_of(html: str) -> str:
    """Names the state of a page. How long ago something was is no part of it: browsers count on by themselves."""
    html = _TIMES.sub("", html)
    return hashlib.blake2s(html.encode(), digest_size=8).hexdigest()


class Live:
    def __init__(self, looking: Looking | None = None) -> None:
        """``looking``: where given, a page rests while no service tells of anything new."""
        self._looking = looking
        self._shared: dict[str, _Shared] = {}
        self._streams = 0
        self._closed = False
        if looking is not None:
            looking.on_move, looking.on_turn = self._moved, self._turned

    @property
    def loaders(self) -> int:
        """How many URLs are loaded at the moment."""
        return len(self._shared)

    @property
    def viewers(self) -> int:
        """How many streams are open at the moment."""
        return self._streams

    async def stream(
        self, url: str, have: str, render: Render, moves: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[bytes, None]:
        """Events for one viewer, who has the state ``have``, until it goes or :meth:`close`. Raises TooMany.

        ``moves``: whether what was loaded last changes without any service's telling so: then the page never rests.
        """
        if self._streams >= _MOST_STREAMS:
            raise TooMany
        self._streams += 1
        shared = self._shared.get(url)
        if shared is None:
            shared = self._shared[url] = _Shared(render, moves if self._looking else lambda: True)
        shared.viewers += 1
        # What was loaded before this viewer came may be older than what it has.
        newer = shared.begun if have else 0
        try:
            while not self._closed:
                if shared.loaded > newer and shared.tag != have:
                    have = shared.tag
                    yield _event("page", shared.html, have)
                else:
                    if shared.loaded <= newer:
                        shared.hurry()
                    yield _event("tick", "")
                if self._looking is not None:
                    self._looking.want()
                await shared.news(have, newer, _TICK_SECONDS)
        finally:
            self._streams -= 1
            shared.viewers -= 1
            if not shared.viewers:
                self._shared.pop(url, None)
                shared.stop()

    def hurry(self, url: str) -> None:
        """Has a page loaded at once, if anybody watches it: something was done on it."""
        if shared := self._shared.get(url):
            shared.hurry()

    def close(self) -> None:
        self._closed = True
        for shared in self._shared.values():
            shared.stop()
            shared.wake()

    def _moved(self) -> None:
        for shared in self._shared.values():
            shared.moved()

    def _turned(self) -> None:
        for shared in self._shared.values():
            shared.turned()


class _Shared:
    """One URL and those who watch it."""

    def __init__(self, render: Render, moves: Callable[[], bool]) -> None:
        self.viewers = 0
        self.html = self.tag = ""
        self.begun = self.loaded = 0
        """The number of the load that was begun last, and of that whose state this is."""
        self._render = render
        self._moves = moves
        self._changed = asyncio.Event()
        self._due = asyncio.Event()
        """Set: it is loaded at once."""
        self._news = asyncio.Event()
        """Set: it rests no longer."""
        self._loading: asyncio.Task[str] | None = None
        self._stopped = False
        self._task = asyncio.create_task(self._run())

    async def news(self, have: str, newer: int, seconds: float) -> None:
        """Returns when the state is another, and newer, or after some seconds."""
        if self.loaded > newer and self.tag != have:
            return
        await _at_most(seconds, self._changed)

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def hurry(self) -> None:
        """Has it loaded at once, unless it is loaded just now."""
        self._due.set()
        self._news.set()

    def moved(self) -> None:
        """Some service tells of something new."""
        self._news.set()

    def turned(self) -> None:
        """A service has fallen silent, or answers again: what is loaded just now may wait for it in vain."""
        self.hurry()
        if self._loading is not None:
            self._loading.cancel()

    def stop(self) -> None:
        self._stopped = True
        self._task.cancel()

    async def _run(self) -> None:
        loop, still = asyncio.get_running_loop(), 0
        while True:
            began = loop.time()
            self._due.clear()
            self._news.clear()
            self.begun += 1
            html = await self._load()
            if html is None:
                continue
            tag = tag_of(html)
            still = 0 if tag != self.tag else still + 1
            wanted = tag != self.tag or self.loaded == 0
            self.html, self.tag, self.loaded = html, tag, self.begun
            if wanted:
                self.wake()
            await self._rest(began, still)

    async def _load(self) -> str | None:
        """The page; None where that was canceled, since a service has turned."""
        self._loading = asyncio.ensure_future(self._render())
        try:
            return await self._loading
        except asyncio.CancelledError:
            if self._stopped or not self._loading.cancelled():
                raise
            return None
        finally:
            self._loading = None

    async def _rest(self, began: float, still: int) -> None:
        """Waits for the next load; ``still``: how many in a row have found nothing new."""
        now = asyncio.get_running_loop().time
        rests = not self._moves()
        slower = min(_MOST_SLOWER, 1 + still // _STILL) if rests else 1
        await _at_most(max(0.05, began + slower * EVERY_SECONDS - now()), self._due)
        if rests:
            await _at_most(began + _REST_SECONDS - now(), self._news)


async def _at_most(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), max(0.0, seconds))


def _event(kind: str, data: str, id: str = "") -> bytes:
    lines = [f"event: {kind}", *(f"data: {line}" for line in _LINE_END.split(data))]
    if id:
        lines.append(f"id: {id}")
    return ("\n".join(lines) + "\n\n").encode()
