"""Rows by key, looked up together: queries that come while a statement is under way share the next one.

A single query is sent at once. The more there are, the more share a statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

_LATE_SECONDS = 0.01
"""After this wait another statement is begun: the connection of the one before may hang."""
_MOST_AT_ONCE = 4
"""Statements under way, of the few connections that a process has."""


class Lookups:
    """The queries of one view by key."""

    def __init__(self, rows: Callable[[Sequence[str]], Awaitable[Mapping[str, Any]]]) -> None:
        """``rows`` gives the rows of these keys that exist, as of when it is called or later."""
        self._rows = rows
        self._wanted: list[tuple[str, asyncio.Future[Any]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._late: asyncio.TimerHandle | None = None

    async def row(self, key: str) -> Any | None:
        """The row as it is now or later; None where there is none. Raises what ``rows`` raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._wanted.append((key, answer))
        if len(self._wanted) == 1:
            if self._under_way:
                self._late = loop.call_later(_LATE_SECONDS, self._begin, loop)
            else:
                self._begin(loop)
        return await answer

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a task that outlives its callers, and begins once the loop has let others ask."""
        if len(self._under_way) < _MOST_AT_ONCE:
            task = loop.create_task(self._answer())
            self._under_way.add(task)

    async def _answer(self) -> None:
        wanted = self._taken()
        if not wanted:  # a statement that has begun meanwhile took them along
            self._end()
            return
        try:
            found = await self._rows(list({key for key, _ in wanted}))
        except asyncio.CancelledError:
            for _, answer in wanted:
                answer.cancel()
            raise
        except Exception as error:
            for _, answer in wanted:
                if not answer.done():
                    answer.set_exception(error)
        else:
            for key, answer in wanted:
                if not answer.done():
                    answer.set_result(found.get(key))
        finally:
            self._end()

    def _taken(self) -> list[tuple[str, asyncio.Future[Any]]]:
        wanted, self._wanted = self._wanted, []
        if self._late:
            self._late.cancel()
            self._late = None
        return wanted

    def _end(self) -> None:
        """Before the callers hear of it: one that asks again at once finds nothing under way."""
        task = asyncio.current_task()
        assert task is not None
        self._under_way.discard(task)
        if self._wanted:
            self._begin(task.get_loop())
