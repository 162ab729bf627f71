"""Projections: views as pure folds of keyed rows, a batch of events at a time.

A view says which row an event changes, and what the row is after it. The handler folds a whole batch in memory,
then stores every changed row once, together with the checkpoint, in one transaction. The same functions serve
every store, and whoever wants to fold a view again to check it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.message import Message

from twinlog.consume import dead_lettering as parking
from twinlog.consume.dead_letters import (
    BEHIND,
    DEAD_LETTERS,
    Command,
    DeadLetters,
    Discard,
    FailReplay,
    Failure,
    Named,
    Park,
    Replay,
)
from twinlog.log.ports import Batch, CheckpointAdvance, ReadRequest
from twinlog.log.system import RandomIds, SystemClock
from twinlog.log.transaction import Draft, Entry, Transaction
from twinlog.log.view_store import ViewStore
from twinlog.model.clock import Clock, Ids
from twinlog.model.errors import CheckpointMoved, Unavailable
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView, Changes, fold

_CACHED_ROWS = 20_000
_RACES = 20


class Projection:
    """The handler of a cursor that keeps views of one log."""

    def __init__(
        self,
        consumer: str,
        views: Sequence[AnyView],
        store: ViewStore,
        *,
        schema: Schema,
        source: str = "",
        routing_key: str = "",
        on_commit: Callable[[Changes, CheckpointAdvance], None] = lambda _changes, _move: None,
        clock: Clock | None = None,
        ids: Ids | None = None,
    ) -> None:
        """``source``: the log that is projected; by default what follows the last dot of ``consumer``. ``tag``: that of
        the events that change a view; empty: all do. ``on_commit`` is told of every batch after its commit."""
        self.types: Sequence[str] = ()
        self.routing_key = routing_key
        self.consumer = consumer
        self.source = source or consumer.rpartition(".")[2]
        self._views = views
        self._store = store
        self._on_commit = on_commit
        self._schema = schema
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._cache: dict[AnyView, OrderedDict[str, Any]] = {view: OrderedDict() for view in views}
        self._stream = StreamId(DEAD_LETTERS.name, consumer)
        self._known = Entry(DEAD_LETTERS, DEAD_LETTERS.initial, 0, 0, 0)
        self._turn = asyncio.Lock()

    @property
    def parked(self) -> int:
        """How many events are parked, as far as this process knows."""
        return self._dead.count

    async def checkpoint(self) -> int:
        # Another replica may have projected in the meantime: what is remembered may be old.
        async with self._turn:
            await self._refresh()
            return await self._store.checkpoint(self.consumer)

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        """Folds the events into the views; parks what cannot be folded. Raises CheckpointMoved."""
        return await parking.handle(self, events, after)

    async def attempt(self, events: Sequence[Recorded], after: int) -> int:
        advance = CheckpointAdvance(self.consumer, after, events[-1].position)
        async with self._turn:
            # While nothing is parked, nobody but the owner of the checkpoint can change a row. Else a replay can:
            # then rows may only be stored if no letter was replayed since they were read.
            while (changes := await self._attempt(events, advance)) is None:
                await self._refresh()
        self._on_commit(changes, advance)
        return advance.upto

    async def park(self, event: Recorded, failure: Failure, after: int) -> int:
        advance = CheckpointAdvance(self.consumer, after, event.position)
        async with self._turn:
            while not await self._commit({}, advance, self._parking([event], failure)):
                await self._refresh()
        self._on_commit({}, advance)
        return advance.upto

    async def dead_letters(self) -> DeadLetters:
        async with self._turn:
            await self._hear_of_letters()
            return self._dead

    async def replay(self, event: Recorded, metadata: Metadata) -> None:
        letter = Named(self.consumer, event.log, event.position, event.partition_key)
        decoded = [(event, message) for message in self._schema.decode(event)]
        changes = await self._decide(Replay(letter), metadata, decoded)
        self._on_commit(changes, CheckpointAdvance(self.consumer, 0, 0))

    async def note(self, command: FailReplay | Discard, metadata: Metadata) -> None:
        await self._decide(command, metadata)

    @property
    def _dead(self) -> DeadLetters:
        dead: DeadLetters = self._known.state
        return dead

    async def _attempt(self, events: Sequence[Recorded], advance: CheckpointAdvance) -> Changes | None:
        """Gives None, and has stored nothing, where a letter was replayed or discarded meanwhile."""
        parked, batch = self._dead.parked, None
        flowing = events
        if parked:
            flowing = [event for event in events if event.partition_key not in parked]
            batch = self._parking([event for event in events if event.partition_key in parked])
        decoded = [(event, message) for event in flowing for message in self._schema.decode(event)]
        await self._fetch(decoded)
        changes = fold(self._views, decoded, self._cache)
        return changes if await self._commit(changes, advance, batch) else None

    async def _decide(
        self, command: Command, metadata: Metadata, decoded: Sequence[tuple[Recorded, Message]] = ()
    ) -> Changes:
        """Decides about a letter, with its event's effect on the rows as they are now."""
        for _ in range(_RACES):
            async with self._turn:
                await self._refresh()
                stays = await self._store.checkpoint(self.consumer)
                draft = self._draft()
                transaction = Transaction(draft, metadata)
                transaction.do(DEAD_LETTERS, self.consumer, command)
                transaction.keep()
                await self._fetch(decoded)
                changes = fold(self._views, decoded, self._cache)
                with suppress(CheckpointMoved):
                    if await self._commit(changes, CheckpointAdvance(self.consumer, stays, stays), draft):
                        return changes
        raise Unavailable(f"{self.consumer} is too busy; try again")

    def _parking(self, events: Sequence[Recorded], failure: Failure = BEHIND) -> Draft:
        draft = self._draft()
        for event in events:
            transaction = Transaction(draft, event.causing(self.consumer))
            transaction.do(DEAD_LETTERS, self.consumer, Park(self.consumer, event, failure))
            transaction.keep()
        return draft

    def _draft(self) -> Draft:
        draft = Draft({self._stream: self._known}, self._ids)
        draft.read[self._stream] = self._known
        return draft

    async def _commit(self, changes: Changes, advance: CheckpointAdvance, draft: Draft | None) -> bool:
        batch = None
        if draft:
            expects = {self._stream: self._known.version}
            batch = Batch(self._clock.now(), expects, draft.events)
        if await self._store.commit(changes, advance, batch):
            return False
        if draft:
            self._known = draft.written.get(self._stream, self._known)
        self._remember(changes)
        return True

    async def _refresh(self) -> None:
        """Forgets rows, and brings the dead letters up to date."""
        self._forget()
        await self._hear_of_letters()

    def _forget(self) -> None:
        for cached in self._cache.values():
            cached.clear()

    async def _hear_of_letters(self) -> None:
        """Brings the dead letters up to date. Where there is news of them, a replay may have changed rows."""
        (history,) = await self._store.log.load([ReadRequest(self._stream, self._known.version)])
        if history.events:
            self._forget()
        for event in history.events:
            dead = DEAD_LETTERS.fold(self._schema.decode(event), self._dead)
            self._known = self._known._replace(state=dead, version=event.version)

    async def _fetch(self, decoded: Sequence[tuple[Recorded, Message]]) -> None:
        for view in self._views:
            if view.append_only:
                continue
            cached = self._cache[view]
            firsts: dict[str, Message] = {}
            for event, message in decoded:
                key = view.key(event, message)
                if key is not None and key not in cached:
                    firsts.setdefault(key, message)
            missing = [key for key, message in firsts.items() if type(message) is not view.created_by]
            if missing:
                cached.update(await self._store.rows(view, missing))

    def _remember(self, changes: Changes) -> None:
        for view, rows in changes.items():
            if not view.append_only:
                cached = self._cache[view]
                cached.update(rows)
                while len(cached) > _CACHED_ROWS:
                    cached.popitem(last=False)
