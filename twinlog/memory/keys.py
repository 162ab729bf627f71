"""The keys of persons, in memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from hashlib import sha256


class MemoryKeys:
    """Keys that follow from the subject, so that a simulation repeats itself: for tests only."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes | None] = {}
        self._nonces = 0

    def nonces(self, count: int) -> bytes:
        """Returns so many bytes, never the same ones twice from this store."""
        self._nonces += 1
        return sha256(self._nonces.to_bytes(8, "big")).digest()[:count]

    def known(self) -> Mapping[str, bytes | None]:
        """All keys there are; None: destroyed."""
        return self._keys

    async def get(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        return {subject: self._keys[subject] for subject in subjects if subject in self._keys}

    async def get_or_make(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        for subject in subjects:
            self._keys.setdefault(subject, sha256(subject.encode()).digest())
        return await self.get(subjects)

    async def destroy(self, subject: str) -> bool:
        was = self._keys.get(subject)
        self._keys[subject] = None
        return was is not None

    async def destroyed(self, within: timedelta) -> Collection[str]:
        """Of any time: nothing is told too often."""
        return [subject for subject, key in self._keys.items() if key is None]

    async def rewrap(self, limit: int) -> int:
        return 0

    async def wrapped_by(self) -> Mapping[str, int]:
        there = sum(key is not None for key in self._keys.values())
        return {"": there} if there else {}
