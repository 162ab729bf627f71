"""Projections: views as pure folds of keyed rows, a batch of events at a time.

A view says which row an event changes, and what the row is after it. The handler folds a whole batch in memory,
then stores every changed row once, together with the checkpoint, in one transaction. The same functions serve
every store, and whoever wants to fold a view again to check it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from twinlog.event import Recorded
from twinlog.log import Move
from twinlog.schema import Schema

Row = TypeVar("Row")

_CACHED_ROWS = 20_000


@dataclass(frozen=True)
class View(Generic[Row]):
    """A table of rows, each the fold of the events that concern it."""

    name: str
    """The table."""
    key: Callable[[Recorded, Any], str | None]
    """The row that an event changes; None: none."""
    evolve: Callable[[Row | None, Recorded, Any], Row]
    """The row after an event; before the first it is None."""
    grows_only: bool = False
    """Every event makes a row of its own: none has to be read."""


AnyView = View[Any]
Changes = Mapping[AnyView, Mapping[str, Any]]
"""Changed rows, by view and key."""


class ViewStore(Protocol):
    """Where views are kept."""

    async def checkpoint(self, consumer: str) -> int:
        """The position up to which a log is projected."""
        ...

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        """Those of the wanted rows that there are."""
        ...

    async def commit(self, changes: Changes, move: Move) -> None:
        """Stores rows and moves the checkpoint, in one transaction.

        Raises CheckpointMoved where the checkpoint is elsewhere: then nothing is stored.
        """
        ...


def fold(views: Sequence[AnyView], decoded: Sequence[tuple[Recorded, Message]], rows: Changes) -> Changes:
    """The rows that the events change, from the rows that are there."""
    changes: dict[AnyView, dict[str, Any]] = {view: {} for view in views}
    for event, message in decoded:
        for view in views:
            key = view.key(event, message)
            if key is not None:
                changed = changes[view]
                row = changed[key] if key in changed else rows.get(view, {}).get(key)
                changed[key] = view.evolve(row, event, message)
    return changes


class Projection:
    """The handler of a cursor that keeps views of one log."""

    def __init__(
        self,
        consumer: str,
        views: Sequence[AnyView],
        store: ViewStore,
        *,
        types: Sequence[type[Message]] = (),
        on_commit: Callable[[Changes, Move], None] = lambda _changes, _move: None,
        schema: Schema | None = None,
    ) -> None:
        """``types``: the events that change a view; none given: all. ``on_commit`` is told of every batch after
        its commit."""
        self.types = [type.DESCRIPTOR.name for type in types]
        self.consumer = consumer
        self._views = views
        self._store = store
        self._on_commit = on_commit
        self._schema = schema or Schema()
        self._cache: dict[AnyView, OrderedDict[str, Any]] = {view: OrderedDict() for view in views}

    async def checkpoint(self) -> int:
        # Another replica may have projected in the meantime: what is remembered of the rows may be old.
        for cached in self._cache.values():
            cached.clear()
        return await self._store.checkpoint(self.consumer)

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        """Folds the events into the views. Raises CheckpointMoved, UnknownEventType, UndecodableEvent."""
        decoded = [(event, message) for event in events for message in self._schema.decode(event)]
        await self._fetch(decoded)
        changes = fold(self._views, decoded, self._cache)
        move = Move(self.consumer, after, events[-1].position)
        await self._store.commit(changes, move)
        self._remember(changes)
        self._on_commit(changes, move)
        return move.upto

    async def _fetch(self, decoded: Sequence[tuple[Recorded, Message]]) -> None:
        for view in self._views:
            if view.grows_only:
                continue
            cached = self._cache[view]
            keys = {key for event, message in decoded if (key := view.key(event, message)) is not None}
            missing = [key for key in keys if key not in cached]
            if missing:
                cached.update(await self._store.rows(view, missing))

    def _remember(self, changes: Changes) -> None:
        for view, rows in changes.items():
            if not view.grows_only:
                cached = self._cache[view]
                cached.update(rows)
                while len(cached) > _CACHED_ROWS:
                    cached.popitem(last=False)
