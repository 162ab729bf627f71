"""Projections as a consumer: the effects of an event are rows of views, which are pure folds.

A view says which row an event changes, and what the row is after it. A whole batch is folded in memory; every changed
row is then stored once, together with the checkpoint, in one transaction. The same functions serve every store, and
whoever folds a view again to check it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from twinlog.consume.consumer import Progress
from twinlog.consume.dead_letters import DeadLettersChanged
from twinlog.log.ports import CheckpointAdvance
from twinlog.log.view_store import ViewStore
from twinlog.model.event import Recorded
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView, Changes, fold

_CACHED_ROWS = 20_000


class Projection:
    """Keeps views of one log."""

    def __init__(
        self,
        name: str,
        views: Sequence[AnyView],
        store: ViewStore,
        *,
        schema: Schema,
        source: str = "",
        routing_key: str = "",
        on_commit: Callable[[str, int, Changes], None] = lambda _name, _position, _changes: None,
    ) -> None:
        """``source``: the log that is projected; by default what follows the last dot of ``name``.

        ``routing_key``: that of the events that change a view; empty: all do. ``on_commit`` is told of every batch
        after its commit: the projection's name, the position that its views are at, and the changed rows.
        """
        self.name = self.actor = name
        self.source = source or name.rpartition(".")[2]
        self.types: Sequence[str] = ()
        self.routing_key = routing_key
        self._views = views
        self._store = store
        self._on_commit = on_commit
        self._schema = schema
        self._cache: dict[AnyView, OrderedDict[str, Any]] = {view: OrderedDict() for view in views}

    @property
    def views(self) -> Sequence[str]:
        """The names of its views."""
        return [view.name for view in self._views]

    async def checkpoint(self) -> int:
        return await self._store.checkpoint(self.name)

    def forget(self) -> None:
        for cached in self._cache.values():
            cached.clear()

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        advance = progress.advance or await self._staying()
        decoded = [(event, message) for event in events for message in self._schema.decode(event)]
        await self._fetch(decoded)
        changes = fold(self._views, decoded, self._cache)
        if await self._store.commit(changes, advance, progress.batch()):
            raise DeadLettersChanged(consumer=self.name)
        self._remember(changes)
        self._on_commit(self.name, advance.upto, changes)
        return advance.upto

    async def _staying(self) -> CheckpointAdvance:
        """For a replay: the rows it changes are the newest if the checkpoint is still where it was before."""
        position = await self.checkpoint()
        return CheckpointAdvance(self.name, position, position)

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
