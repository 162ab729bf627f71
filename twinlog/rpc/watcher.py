"""One who watches a view: what is told waits here until it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from twinlog.log.view_store import ViewMoment
from twinlog.model.errors import Overloaded
from twinlog.rpc.watched_build import Told

T = TypeVar("T")
MOST_WAITING = 100
"""Changes that wait for a watcher to take them; with one more it is cut off."""


class WatchTooSlow(Overloaded):
    """More than {waiting} changes wait for this watcher, which takes them too slowly; it may watch again from
    resume_token {resume_token}, where one is given."""

    reason = "WATCH_TOO_SLOW"


class Change:
    """What a watcher is told at once."""

    __slots__ = ("_made", "left", "resume_token", "rows")

    def __init__(self, rows: Mapping[str, Any], left: Sequence[str], resume_token: str) -> None:
        self.rows = rows
        """The rows as they are now, by key."""
        self.left = left
        """The keys of rows that were among those watched and are not any more, or are gone."""
        self.resume_token = resume_token
        """Goes on after this change."""
        self._made: Any = None

    @property
    def row(self) -> Any:
        """The row of a watch of one; None: there is none."""
        return next(iter(self.rows.values()), None)

    def once(self, make: Callable[[Change], T]) -> T:
        """What ``make`` makes of it, made once for all watchers that are told of it."""
        if self._made is None:
            self._made = make(self)
        made: T = self._made
        return made

    async def once_awaited(self, make: Callable[[Change], Coroutine[Any, Any, T]]) -> T:
        """As :meth:`once`, where making it takes waiting: a watcher that leaves meanwhile leaves it to the others."""
        made = self.once(lambda change: asyncio.ensure_future(make(change)))
        return made.result() if made.done() else await asyncio.shield(made)


Filter = tuple[tuple[str, ...], tuple[Any, ...]]
"""Fields of a row, and their values."""
First = Callable[[ViewMoment], Awaitable[Iterable[Any]]]
"""Reads the rows that a watch begins with."""


class Watcher:
    """One watch: what it watches, and the changes that wait for it."""

    __slots__ = (
        "_woken",
        "failed",
        "filter",
        "first",
        "given",
        "key",
        "state",
        "told",
        "waiting",
        "watched",
    )

    def __init__(self, watched: str, *, key: str = "", filter: Filter | None = None) -> None:
        self.watched = watched
        """The hash of what it watches."""
        self.key = key
        self.filter = filter
        """None: it watches one row."""
        self.first: First | None = None
        self.told: Told | None = None
        """Where it resumes, until it has joined."""
        self.state = ""
        """That of the row that it was told last, see :func:`resume_tokens.state_of`."""
        self.given = ""
        """The token of the last change that it took."""
        self.waiting: list[Change] = []
        self._woken: asyncio.Future[None] | None = None
        """While it waits: a thousand watchers are to stay small."""
        self.failed: Exception | None = None

    def tell(self, change: Change) -> None:
        if self.failed:
            return
        if len(self.waiting) >= MOST_WAITING:
            self.fail(WatchTooSlow(waiting=MOST_WAITING, resume_token=self.given))
            return
        self.waiting.append(change)
        self._wake()

    def fail(self, why: Exception) -> None:
        self.failed = self.failed or why
        self.waiting = []  # it resumes after what it took
        self._wake()

    def _wake(self) -> None:
        if self._woken and not self._woken.done():
            self._woken.set_result(None)

    async def take(self) -> Change:
        while not self.waiting:
            if self.failed:
                raise self.failed
            self._woken = asyncio.get_running_loop().create_future()
            await self._woken
        change = self.waiting.pop(0)
        self.given = change.resume_token
        return change
