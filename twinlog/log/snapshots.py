"""Snapshots: states saved in the background, so that a cold stream is read from its newest snapshot onwards.

A snapshot carries the hash of its state's schema and of the upcasters that its events went through; one with another
hash is ignored and replaced, and so is one that cannot be decoded.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from functools import cache
from typing import Any
from zlib import crc32

import structlog
from pydantic import TypeAdapter
from pydantic_core import from_json

from twinlog._aio.retrying import Randomness, Retrying
from twinlog.log import collector, say
from twinlog.log.large_fields import LargeFields
from twinlog.log.past import Nearest
from twinlog.log.personal import SEALED_STATE, Personal
from twinlog.log.ports import Log, Snapshot
from twinlog.log.transaction import Entry
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.apart import Apart
from twinlog.model.errors import defect, raise_defect, text_of
from twinlog.model.event import Recorded, StreamId
from twinlog.model.personal import OWN_TYPES
from twinlog.model.schema import Schema
from twinlog.model.withheld import decides_personal, holds, withheld

EVERY = 100
"""Events of a stream between two snapshots, by default."""

_BYTES_PER_EVENT = 64
"""A large state is saved less often: saving it should cost about as much as reading the events that it replaces."""

_LARGE_BYTES = 256 * 1024
"""A state whose last snapshot was larger is encoded outside of the event loop."""
_LARGE_TO_READ_BYTES = 1024 * 1024
"""A larger snapshot is decoded there; smaller ones take some milliseconds, and going to and fro takes as long."""
_MANY_EVENTS = 2_000
"""A state of this many events without a known snapshot is encoded there, too, as after its class has changed."""

_REMEMBERED_SIZES = 10_000
_MOST_WAITING = 10_000
_BATCH = 50
_NO_SCHEMA = "none"


class ValueCodec:
    """Translates values of a class to JSON and back; pydantic must understand it."""

    def __init__(self, of: type) -> None:
        self._adapter, self.schema, self._fields, self._large = _adapter(of)

    def encode(self, state: Any) -> bytes:
        apart = Apart(_give_way)
        try:
            spared = self._large.set_apart(state, apart)
            # A warning would quote the value that is not of its type.
            warnings = spared is state and not OWN_TYPES
            return apart.filled(self._adapter.dump_json(spared, context=apart, warnings=warnings))
        except BaseException as error:
            raise_defect(error)

    def decode(self, data: bytes) -> Any:
        """The state in a snapshot. Raises whatever a field's own type raises, and ValueError for all else."""
        if len(data) <= _LARGE_TO_READ_BYTES:
            return self._decoded(data)
        with collector.spared():
            apart = Apart(_give_way)
            rest, values = self._large.without(apart.without(data), apart)
            state = self._large.filled(self._decoded(rest, apart), values)
            return state if apart.all_taken else self._decoded(data)

    def _decoded(self, data: bytes, apart: Apart | None = None) -> Any:
        # A field that is missing would be filled with its default: a state, but not that of the stream.
        if self._fields and _keys(data) != self._fields:
            raise ValueError("it is not a state of this schema")
        return self._adapter.validate_json(data, context=apart)


class StateCodec(ValueCodec):
    """Translates an aggregate's state to JSON and back; pydantic must understand its class."""

    def __init__(self, aggregate: AnyAggregate) -> None:
        super().__init__(type(aggregate.initial))


def _give_way() -> None:
    time.sleep(0)  # another thread goes on at once, which would otherwise wait for 5 ms


@cache  # costs milliseconds
def _adapter(state: type) -> tuple[TypeAdapter[Any], str, Set[str], LargeFields]:
    """The translation of a class of states to JSON and back, the hash of its schema, its fields, and the large ones."""
    adapter: TypeAdapter[Any] = TypeAdapter(state)
    schema = adapter.json_schema()
    text = json.dumps(_without_words(schema), sort_keys=True)
    names = schema.get("properties", {}).keys()
    return adapter, hashlib.sha256(text.encode()).hexdigest()[:16], names, LargeFields(adapter.core_schema)


def _without_words(schema: Any) -> Any:
    """A JSON schema without its titles and descriptions: rewording a docstring leaves snapshots as they are."""
    if isinstance(schema, list):
        return [_without_words(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    words = [key for key in ("title", "description") if isinstance(schema.get(key), str)]
    return {key: _without_words(part) for key, part in schema.items() if key not in words}


def _keys(data: bytes) -> Set[str] | None:
    """The keys of a JSON object; None for any other JSON."""
    read = from_json(data)
    return read.keys() if isinstance(read, dict) else None


def snapshot_schema(codec: ValueCodec, events: Schema | None) -> str:
    """What the snapshots of a state are marked with: its schema and the upcasters of its events, as a hash."""
    if not (events and events.fingerprint):
        return codec.schema
    return hashlib.sha256(f"{codec.schema} {events.fingerprint}".encode()).hexdigest()[:16]


class StateCodecs:
    """The codecs of aggregates."""

    def __init__(self, events: Schema | None = None, personal: Personal | None = None) -> None:
        """``events``: what reads the events that the states come from; None: one without upcasters.

        ``personal`` opens events, and seals states that may hold personal texts; None: all is as it is stored.
        """
        self._events = events
        self.personal = personal
        self._codecs: dict[str, StateCodec] = {}
        self.ignored = 0
        """How many snapshots were of no use."""
        self._sizes: OrderedDict[StreamId, int] = OrderedDict()

    def size(self, stream: StreamId) -> int:
        """How many bytes a stream's state takes as a snapshot; 0: not known."""
        return self._sizes.get(stream, 0)

    def codec(self, aggregate: AnyAggregate) -> StateCodec:
        """The codec of an aggregate's state."""
        if aggregate.name not in self._codecs:
            self._codecs[aggregate.name] = StateCodec(aggregate)
        return self._codecs[aggregate.name]

    def schema(self, aggregate: AnyAggregate) -> str:
        """What the snapshots of an aggregate's state are marked with; by its end it tells whether they are sealed."""
        schema = snapshot_schema(self.codec(aggregate), self._events)
        sealed = self.personal and aggregate.keeps_personal and holds(aggregate)
        return f"{schema}{SEALED_STATE}" if sealed else schema

    async def opened(self, events: Sequence[Recorded]) -> Sequence[Recorded]:
        """Events as a fold is given them."""
        return await self.personal.opened(events) if self.personal else events

    async def sealed(self, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        """Snapshots as they are stored: those marked for it sealed, those that must not be stored left out."""
        marked = [each for each in snapshots if each.schema.endswith(SEALED_STATE)]
        if not (marked and self.personal):
            return [*snapshots]
        plain = [each for each in snapshots if each not in marked]
        return plain + await self.personal.sealed_states(marked)

    def restore(self, aggregate: AnyAggregate, snapshot: Snapshot) -> Any:
        """The state in a snapshot. Raises anything where it holds none, without its text where that may be personal."""
        try:
            state = self.codec(aggregate).decode(snapshot.state)
        except BaseException as error:
            raise withheld(defect(error), decides_personal(aggregate)) from None
        self._remember(snapshot.stream, snapshot.state)
        return state

    async def restored(self, aggregate: AnyAggregate, snapshot: Snapshot) -> Any:
        """The same; a large one is decoded by another thread, which gives this one its turns."""
        if len(snapshot.state) <= _LARGE_TO_READ_BYTES:
            return self.restore(aggregate, snapshot)
        return await asyncio.to_thread(self.restore, aggregate, snapshot)

    async def entry(self, aggregate: AnyAggregate, nearest: Nearest) -> Entry:
        """A stream as it was at a snapshot. Raises anything where the snapshot holds no state, or is damaged."""
        snapshot, checksum = nearest
        if checksum not in (None, crc32(snapshot.state)):
            raise ValueError("its bytes are not those that were kept")
        if self.personal:
            snapshot = await self.personal.opened_state(snapshot)
        state = await self.restored(aggregate, snapshot)
        return Entry(aggregate, state, snapshot.version, snapshot.position, snapshot.version)

    async def encoded(self, stream: StreamId, at: Entry) -> bytes:
        """A state as a snapshot has it; one that may be large is encoded by another thread: that takes milliseconds."""
        encode, size = self.codec(at.aggregate).encode, self._sizes.get(stream)
        large = at.version > _MANY_EVENTS if size is None else size > _LARGE_BYTES
        # States never change, so another thread can read one.
        state = await asyncio.to_thread(encode, at.state) if large else encode(at.state)
        self._remember(stream, state)
        return state

    def _remember(self, stream: StreamId, state: bytes) -> None:
        self._sizes[stream] = len(state)
        if len(self._sizes) > _REMEMBERED_SIZES:
            self._sizes.popitem(last=False)

    def ignore(self, stream: StreamId, why: Exception) -> None:
        """Notes that a snapshot was of no use."""
        self.ignored += 1
        structlog.get_logger().warning(
            "snapshot.ignored", stream=str(stream), why=text_of(why), ignored=self.ignored
        )


def not_encoded(stream: StreamId, aggregate: AnyAggregate, error: Exception) -> None:
    """Says that a state cannot be encoded."""
    shown = withheld(error, decides_personal(aggregate))
    structlog.get_logger().warning("snapshot.not_encoded", stream=str(stream), exc_info=shown)


class Snapshots(StateCodecs):
    """The task that saves snapshots; each writer owns one."""

    def __init__(
        self,
        log: Log,
        every: int = EVERY,
        *,
        events: Schema | None = None,
        randomness: Randomness = random,
        personal: Personal | None = None,
    ) -> None:
        """``personal`` seals the states that may hold personal texts."""
        super().__init__(events, personal)
        self._log = log
        self._every = every
        self._waiting: dict[StreamId, Entry] = {}
        self._unfit: set[StreamId] = set()
        """Those of the waiting whose stored snapshot is of no use, whatever version it says."""
        self._wake = asyncio.Event()
        self._retrying = Retrying(
            say_failing=say.warning("snapshots.failing", log=log.name),
            say_working=say.info("snapshots.saving", log=log.name),
            randomness=randomness,
        )

    @property
    def problem(self) -> str | None:
        """Current fault, or None while healthy."""
        return self._retrying.problem

    @property
    def waiting(self) -> int:
        """How many snapshots wait to be saved."""
        return len(self._waiting)

    def offer_all(self, entries: Mapping[StreamId, Entry]) -> Mapping[StreamId, Entry]:
        """Queues snapshots of those streams of which one is due; returns these with their newest snapshot version."""
        every, sizes = self._every, self._sizes
        due = [
            (stream, entry)
            for stream, entry in entries.items()
            if (grown := entry.version - entry.snapshot_version) >= every
            and grown >= sizes.get(stream, 0) // _BYTES_PER_EVENT
        ]
        return {stream: self._queue(stream, entry) for stream, entry in due}

    def replace(self, stream: StreamId, entry: Entry) -> Entry:
        """Queues a snapshot in place of one that is of no use; returns the entry with its newest snapshot version."""
        self._unfit.add(stream)
        return self._queue(stream, entry)

    def forget(self) -> None:
        """Drops what was offered and is not saved yet."""
        self._waiting.clear()

    async def run(self) -> None:
        """Saves what is offered, endlessly. A snapshot that cannot be saved is dropped: the next one will do."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                # Neither an outage nor a fault of these few ends the task.
                await self._retrying.bear(self._save_some())

    async def _save_some(self) -> None:
        try:
            await self._save(await self._encoded())
        finally:
            self._unfit.intersection_update(self._waiting)

    async def _save(self, chosen: Sequence[Snapshot]) -> None:
        unfit = [s.stream for s in chosen if s.stream in self._unfit]
        if unfit:
            self._unfit.difference_update(unfit)
            # Only a snapshot of another schema is replaced by one of any version.
            await self._log.save([Snapshot(stream, 0, 0, _NO_SCHEMA, b"") for stream in unfit])
        if chosen:
            await self._log.save(chosen)

    def _queue(self, stream: StreamId, entry: Entry) -> Entry:
        self._waiting[stream] = entry
        if len(self._waiting) > _MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
        self._wake.set()
        return entry._replace(snapshot_version=entry.version)

    async def _encoded(self) -> list[Snapshot]:
        """A batch of pending snapshots. It yields after each one: streams that grow together are due together."""
        chosen: dict[StreamId, Snapshot] = {}
        while self._waiting and len(chosen) < _BATCH:
            stream, entry = self._waiting.popitem()
            try:
                chosen[stream] = await self._snapshot(stream, entry)
            except Exception as error:  # a state that cannot be encoded concerns no other
                not_encoded(stream, entry.aggregate, error)
            await asyncio.sleep(0)
        return await self.sealed([*chosen.values()])

    async def _snapshot(self, stream: StreamId, entry: Entry) -> Snapshot:
        state = await self.encoded(stream, entry)
        structlog.get_logger().debug("snapshot", stream=str(stream), version=entry.version, bytes=len(state))
        return Snapshot(stream, entry.version, entry.position, self.schema(entry.aggregate), state)
