"""The keys of persons: the port, and what makes a cipher of a key.

Adapters: :class:`twinlog.postgres.keys.PostgresKeys` and :class:`twinlog.memory.keys.MemoryKeys`; one behavior suite
covers both.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import Protocol

from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.model.personal import Cipher

KEY_BYTES = 32


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


def cipher(key: bytes) -> Cipher:
    """AES-256-GCM with a key."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # only where there are personal fields

    return AESGCM(key)


def require_cipher(types: Sequence[str]) -> None:
    """Raises NoCipher where there are such types, and no package that encrypts."""
    if types and find_spec("cryptography") is None:
        raise NoCipher(types=" and ".join(types))
