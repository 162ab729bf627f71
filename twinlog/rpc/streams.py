"""Response streams of a server: how many there may be, and for how long.

A watcher costs memory and a task for as long as it likes, so it is counted apart from calls, and told to watch again
now and then. That also spreads watchers over replicas which came later.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from twinlog.model.errors import Overloaded, TwinlogError, Unavailable

_JITTER = 0.2
"""The most by which an age is cut short, at random, so that watchers who came together do not come again together."""


class TooManyStreams(Overloaded):
    """{open} streams are open {where}, and more are not served; end some, or try again later."""

    reason = "TOO_MANY_STREAMS"


class WatchAgain(Unavailable):
    """The server ended the stream {why}; open it again."""

    reason = "WATCH_AGAIN"


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What a server's streams may come to."""

    most: int = 2048
    """Streams at once."""
    per_connection: int = 128
    """Streams at once on one connection."""
    idle_seconds: float = 600.0
    """A stream without a message for so long is ended."""
    seconds: float = 3600.0
    """Any stream is ended after so long."""
    oldest_gives_way: bool = False
    """Whether a stream beyond a limit ends the oldest one, instead of being refused."""


@dataclass(eq=False, slots=True)
class Stream:
    """One stream."""

    task: asyncio.Task[None]
    connection: str
    began: float
    heard: float
    """When it last sent a message."""
    lasts_seconds: float
    """Seconds that it may be open."""
    ended_by: TwinlogError | None = None
    """Why the server ends it."""
    timer: asyncio.TimerHandle | None = None
    """Looks whether it has to end."""
    writing: bool = False
    """Whether a message is being written; then it ends after that."""

    def end(self, why: TwinlogError) -> None:
        """Ends it."""
        if self.ended_by is None:
            self.ended_by = why
            if not self.writing:
                self.task.cancel()


class Streams:
    """The streams that are open now, the oldest first."""

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self._open: dict[Stream, None] = {}
        self._of: Counter[str] = Counter()
        """How many are open, by connection."""

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def open(self, task: asyncio.Task[None], connection: str) -> Iterator[Stream]:
        """Counts a stream, which ``task`` serves, inside the block. Raises TooManyStreams."""
        self._make_room(connection)
        loop = asyncio.get_running_loop()
        lasts = self._limits.seconds * (1 - _JITTER * random.random())
        stream = Stream(task, connection, loop.time(), loop.time(), lasts)
        self._open[stream] = None
        self._of[connection] += 1
        stream.timer = loop.call_later(min(lasts, self._limits.idle_seconds), self._look, stream)
        try:
            yield stream
        finally:
            if stream.timer:
                stream.timer.cancel()
            self._uncount(stream)

    def end_all(self, why: TwinlogError) -> None:
        """Ends every stream."""
        for stream in list(self._open):
            self._end(stream, why)

    def _make_room(self, connection: str) -> None:
        limits = self._limits
        if self._of[connection] >= limits.per_connection:
            crowd = [stream for stream in self._open if stream.connection == connection]
            refusal = TooManyStreams(open=limits.per_connection, where="on this connection")
        elif len(self._open) >= limits.most:
            crowd, refusal = list(self._open), TooManyStreams(open=limits.most, where="on this server")
        else:
            return
        if not limits.oldest_gives_way:
            raise refusal
        self._end(crowd[0], WatchAgain(why="to make room for others"))

    def _look(self, stream: Stream) -> None:
        """Ends a stream that is too old or has been idle for too long, or looks again when it may be."""
        loop, limit = asyncio.get_running_loop(), self._limits.idle_seconds
        now = loop.time()
        ages, idles = stream.began + stream.lasts_seconds, stream.heard + limit
        if now < min(ages, idles):
            stream.timer = loop.call_at(min(ages, idles), self._look, stream)
        elif now >= ages:
            self._end(stream, WatchAgain(why=f"after {stream.lasts_seconds:.0f} s"))
        else:
            self._end(stream, WatchAgain(why=f"after {limit:.0f} s without a message"))

    def _end(self, stream: Stream, why: TwinlogError) -> None:
        # One whose client does not read goes on for as long as that, and must not make room for others like it.
        if not stream.writing or self._limits.oldest_gives_way:
            self._uncount(stream)
        stream.end(why)

    def _uncount(self, stream: Stream) -> None:
        if stream in self._open:
            del self._open[stream]
            self._of[stream.connection] -= 1
            if not self._of[stream.connection]:
                del self._of[stream.connection]
