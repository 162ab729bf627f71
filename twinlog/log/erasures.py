"""Remembers who is erased, apart from the keys: a store of keys that was restored from a backup has their keys again.

Each service notes it beside its log. Where the keys are opened, and after each connection to them that is new, those
that came back are destroyed again, before any of them is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import Protocol, TypeVar

import structlog

from twinlog.log.keys import Keys

T = TypeVar("T")

_EVER = timedelta(days=365_000)


class Erasures(Protocol):
    """Persons whose keys were destroyed. All methods raise Unavailable in an outage."""

    async def note(self, subjects: Collection[str]) -> None:
        """Remembers them; those that are known stay as they are."""

    async def noted(self) -> Collection[str]:
        """All of them."""


class ConnectedKeys(Keys, Protocol):
    """Keys that tell how many connections were made to them: each may lead to another store."""

    @property
    def connections(self) -> int: ...


class RememberedKeys:
    """Keys of which none comes back."""

    def __init__(self, keys: ConnectedKeys, erasures: Erasures) -> None:
        self._keys = keys
        self._erasures = erasures
        self._agreed = -1
        """How many connections there were when both were last compared."""
        self._turn = asyncio.Lock()

    async def get(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        return await self._asked(lambda: self._keys.get(subjects))

    async def get_or_make(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        return await self._asked(lambda: self._keys.get_or_make(subjects))

    async def destroy(self, subject: str) -> bool:
        was = await self._keys.destroy(subject)
        await self._erasures.note([subject])
        return was

    async def destroyed(self, within: timedelta) -> Collection[str]:
        return await self._asked(lambda: self._keys.destroyed(within))

    async def rewrap(self, limit: int) -> int:
        return await self._keys.rewrap(limit)

    async def wrapped_by(self) -> Mapping[str, int]:
        return await self._keys.wrapped_by()

    async def agree(self) -> None:
        """Destroys again what came back, and notes what others have destroyed. Raises Unavailable."""
        async with self._turn:
            while self._agreed != (connections := self._keys.connections):
                destroyed, noted = {*await self._keys.destroyed(_EVER)}, {*await self._erasures.noted()}
                if back := sorted(noted - destroyed):
                    for subject in back:
                        await self._keys.destroy(subject)
                    structlog.get_logger().warning("keys.erased_again", count=len(back))
                if more := destroyed - noted:
                    await self._erasures.note(more)
                self._agreed = connections

    async def _asked(self, question: Callable[[], Awaitable[T]]) -> T:
        """An answer of a store that was compared: another one may have answered meanwhile."""
        while True:
            await self.agree()
            answer = await question()
            if self._agreed == self._keys.connections:
                return answer
