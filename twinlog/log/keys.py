"""The keys of persons: the port, and what makes a cipher of a key.

Adapters: :class:`twinlog.postgres.keys.PostgresKeys` and :class:`twinlog.memory.keys.MemoryKeys`; one behavior suite
covers both.

Who is erased is remembered apart from the keys: a store of keys that was restored from a backup has their keys again.
Each service notes it beside its log. Where the keys are opened, and after each connection to them that is new, those
that came back are destroyed again, before any of them is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import Protocol, TypeVar

import structlog

from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.model.personal import Cipher

T = TypeVar("T")

KEY_BYTES = 32
_EVER = timedelta(days=365_000)


class KeysUnavailable(Unavailable):
    """The keys of personal data cannot be read: {why}."""

    reason = "KEYS_UNAVAILABLE"


class NoCipher(ConfigurationError):
    """{types} has personal fields, and the package that encrypts them is not installed: pip install
    'twinlog[erasure]'."""

    reason = "NO_CIPHER"


class Keys(Protocol):
    """The key of each person, made once and destroyed once. All methods raise Unavailable in an outage."""

    async def get(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        """The keys of those who have or had one; None: it is destroyed."""

    async def get_or_make(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        """The keys of all of them; those who never had one get one, of 32 random bytes. None: it is destroyed."""

    async def destroy(self, subject: str) -> bool:
        """Destroys the key of a person for good; a person who never had one will never get one. Returns whether it
        existed."""

    async def destroyed(self, within: timedelta) -> Collection[str]:
        """Whose keys were destroyed within that time."""

    async def rewrap(self, limit: int) -> int:
        """Wraps anew up to ``limit`` keys that are not wrapped by the newest wrapping key; returns how many."""

    async def wrapped_by(self) -> Mapping[str, int]:
        """How many keys there are, by the name of what wraps them; empty: nothing does."""


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


def cipher(key: bytes) -> Cipher:
    """AES-256-GCM with a key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # only where there are personal fields

    return AESGCM(key)


def require_cipher(types: Sequence[str]) -> None:
    """Raises NoCipher where there are such types, and no package that encrypts."""
    if types and find_spec("cryptography") is None:
        raise NoCipher(types=" and ".join(types))
