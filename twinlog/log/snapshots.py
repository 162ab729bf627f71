"""Snapshots: states saved in the background, so that a cold stream is read from its newest snapshot onwards.

A snapshot carries the hash of its state's schema; one with another hash is ignored and replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from typing import Any

import structlog
from pydantic import TypeAdapter

from twinlog.log.ports import Log, Snapshot
from twinlog.log.transaction import Entry
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import Unavailable
from twinlog.model.event import StreamId

EVERY = 100
"""Events of a stream between two snapshots, by default."""

_BYTES_PER_EVENT = 64
"""A large state is saved less often: saving it should cost about as much as reading the events that it replaces."""

_REMEMBERED_SIZES = 10_000
_BATCH = 50


class StateCodec:
    """Translates an aggregate's state to JSON and back; pydantic must understand its class."""

    def __init__(self, aggregate: AnyAggregate) -> None:
        self._adapter, self.schema = _adapter(type(aggregate.initial))  # type: ignore[arg-type]

    def encode(self, state: Any) -> bytes:
        return self._adapter.dump_json(state)

    def decode(self, data: bytes) -> Any:
        return self._adapter.validate_json(data)


@cache  # costs milliseconds
def _adapter(state: type) -> tuple[TypeAdapter[Any], str]:
    """The translation of a class of states to JSON and back, and the hash of its schema."""
    adapter: TypeAdapter[Any] = TypeAdapter(state)
    schema = json.dumps(adapter.json_schema(), sort_keys=True)
    return adapter, hashlib.sha256(schema.encode()).hexdigest()[:16]


class Snapshots:
    """The codecs of aggregates, and the task that saves snapshots; each writer owns one."""

    def __init__(self, log: Log, every: int = EVERY) -> None:
        self._log = log
        self._every = every
        self._codecs: dict[str, StateCodec] = {}
        self._sizes: OrderedDict[StreamId, int] = OrderedDict()
        self._waiting: dict[StreamId, Entry] = {}
        self._wake = asyncio.Event()

    def codec(self, aggregate: AnyAggregate) -> StateCodec:
        """The codec of an aggregate's state."""
        if aggregate.name not in self._codecs:
            self._codecs[aggregate.name] = StateCodec(aggregate)
        return self._codecs[aggregate.name]

    def restore(self, aggregate: AnyAggregate, snapshot: Snapshot) -> Any:
        """The state in a snapshot."""
        self._remember(snapshot.stream, len(snapshot.state))
        return self.codec(aggregate).decode(snapshot.state)

    def offer(self, stream: StreamId, entry: Entry) -> Entry:
        """Queues a snapshot of the stream if one is due; returns the entry with its newest snapshot version."""
        interval = max(self._every, self._sizes.get(stream, 0) // _BYTES_PER_EVENT)
        if entry.version - entry.snapshot_version < interval:
            return entry
        self._waiting[stream] = entry
        self._wake.set()
        return entry._replace(snapshot_version=entry.version)

    def forget(self) -> None:
        """Drops what was offered and is not saved yet."""
        self._waiting.clear()

    async def run(self) -> None:
        """Saves what is offered, endlessly. A snapshot that cannot be saved is dropped: the next one will do."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                chosen = await self._encoded()
                with suppress(Unavailable):
                    await self._log.save(chosen)

    async def _encoded(self) -> list[Snapshot]:
        """A batch of pending snapshots. It yields after each one: streams that grow together are due together."""
        chosen: dict[StreamId, Snapshot] = {}
        while self._waiting and len(chosen) < _BATCH:
            stream, entry = self._waiting.popitem()
            chosen[stream] = self._snapshot(stream, entry)
            await asyncio.sleep(0)
        return list(chosen.values())

    def _snapshot(self, stream: StreamId, entry: Entry) -> Snapshot:
        codec = self.codec(entry.aggregate)
        state = codec.encode(entry.state)
        self._remember(stream, len(state))
        structlog.get_logger().debug("snapshot", stream=str(stream), version=entry.version, bytes=len(state))
        return Snapshot(stream, entry.version, entry.position, codec.schema, state)

    def _remember(self, stream: StreamId, size: int) -> None:
        self._sizes[stream] = size
        if len(self._sizes) > _REMEMBERED_SIZES:
            self._sizes.popitem(last=False)
