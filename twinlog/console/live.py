"""Pages as streams of server-sent events: each URL is loaded once a second, however many watch it, while somebody does.

An event ``page`` has the parts of a page that changed, as HTML; its id names that state, so that a browser that comes
back is sent what it has missed, or nothing. An event ``tick`` says that the stream is alive.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress

EVERY_SECONDS = 1.0
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
    """The streams of all pages."""

    def __init__(self) -> None:
        self._shared: dict[str, _Shared] = {}
        self._streams = 0
        self._closed = False

    @property
    def loaders(self) -> int:
        """How many URLs are loaded at the moment."""
        return len(self._shared)

    @property
    def viewers(self) -> int:
        """How many streams are open at the moment."""
        return self._streams

    async def stream(self, url: str, have: str, render: Render) -> AsyncGenerator[bytes, None]:
        """Events for one viewer, who has the state ``have``, until it goes or :meth:`close`. Raises TooMany."""
        if self._streams >= _MOST_STREAMS:
            raise TooMany
        self._streams += 1
        shared = self._shared.get(url)
        if shared is None:
            shared = self._shared[url] = _Shared(render)
        shared.viewers += 1
        try:
            while not self._closed:
                if shared.tag and shared.tag != have:
                    have = shared.tag
                    yield _event("page", shared.html, have)
                else:
                    yield _event("tick", "")
                await shared.news(have, _TICK_SECONDS)
        finally:
            self._streams -= 1
            shared.viewers -= 1
            if not shared.viewers:
                self._shared.pop(url, None)
                shared.stop()

    def close(self) -> None:
        """Ends all streams, and loading."""
        self._closed = True
        for shared in self._shared.values():
            shared.stop()
            shared.wake()


class _Shared:
    """One URL and those who watch it."""

    def __init__(self, render: Render) -> None:
        self.viewers = 0
        self.html = self.tag = ""
        self._render = render
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def news(self, have: str, seconds: float) -> None:
        """Returns when the state is another, or after some seconds."""
        if self.tag and self.tag != have:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    def wake(self) -> None:
        """Wakes all who wait."""
        self._changed.set()
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """Ends loading."""
        self._task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            html = await self._render()
            tag = tag_of(html)
            if tag != self.tag:
                self.html, self.tag = html, tag
                self.wake()
            await asyncio.sleep(max(0.05, began + EVERY_SECONDS - loop.time()))


def _event(kind: str, data: str, id: str = "") -> bytes:
    lines = [f"event: {kind}", *(f"data: {line}" for line in _LINE_END.split(data))]
    if id:
        lines.append(f"id: {id}")
    return ("\n".join(lines) + "\n\n").encode()
