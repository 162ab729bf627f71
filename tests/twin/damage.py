"""What may happen to a stream in JetStream behind the back of Twinlog."""

from __future__ import annotations

from twinlog.testing.conformance import Damage, MemoryDamage
from twinlog.testing.internals import JetStreamTwin, NatsClient, Twin

__all__ = ["Damage", "JetStreamDamage", "MemoryDamage"]


class JetStreamDamage:
    def __init__(self, client: NatsClient, name: str) -> None:
        self._client = client
        self._name = name

    def twin(self) -> Twin:
        return JetStreamTwin(self._client, self._name)

    async def purge(self, keep: int = 0) -> None:
        await self._client.jsm().purge_stream(self._name, keep=keep)

    async def remove(self, sequence: int) -> None:
        await self._client.jsm().delete_msg(self._name, sequence)

    async def put(self, subject: str, data: bytes) -> None:
        await self._client.jetstream().publish(f"{self._name}.{subject}", data)

    async def delete_consumers(self) -> None:
        manager = self._client.jsm()
        for consumer in await manager.consumers_info(self._name):
            await manager.delete_consumer(self._name, consumer.name)
