"""What may happen to a stream behind the back of Twinlog."""

from __future__ import annotations

from typing import Protocol

from twinlog.log.twin import Twin
from twinlog.memory.twin import MemoryTwin


class Damage(Protocol):
    """Someone with the nats command line."""

    def twin(self) -> Twin:
        """The stream, as another process sees it."""

    async def purge(self, keep: int = 0) -> None:
        """Removes all messages but the newest ``keep``."""

    async def remove(self, sequence: int) -> None: ...

    async def put(self, subject: str, data: bytes) -> None:
        """Adds a message to the stream; ``subject`` without its first token."""

    async def delete_consumers(self) -> None: ...


class MemoryDamage:
    """Of a stream in memory."""

    def __init__(self, name: str) -> None:
        self._twin = MemoryTwin(name)

    def twin(self) -> Twin:
        return self._twin

    async def purge(self, keep: int = 0) -> None:
        assert self._twin.messages is not None
        for sequence in sorted(self._twin.messages)[: len(self._twin.messages) - keep]:
            del self._twin.messages[sequence]

    async def remove(self, sequence: int) -> None:
        assert self._twin.messages is not None
        del self._twin.messages[sequence]

    async def put(self, subject: str, data: bytes) -> None:
        assert self._twin.messages is not None
        self._twin.last += 1
        self._twin.messages[self._twin.last] = (f"{self._twin.name}.{subject}", data)
        self._twin.wake_deliveries()

    async def delete_consumers(self) -> None:
        self._twin.delete_consumers()
