"""Projections as a consumer: the effects of an event are rows of views, which are pure folds.

A view says which row an event changes, and what the row is after it. A whole batch is folded in memory; every changed
row is then stored once, together with the checkpoint, in one transaction. The same functions serve every store, and an
audit that folds a view again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.message import Message

from twinlog.consume.consumer import Progress
from twinlog.consume.dead_letters import DeadLettersChanged
from twinlog.log.ports import CheckpointAdvance, Conflict
from twinlog.log.view_builds import RebuildableStore, home_version
from twinlog.log.view_store import (
    Build,
    CheckedViewStore,
    NotingViewStore,
    SharedViewStore,
    TypedViewStore,
    ViewStore,
    consumer_of,
)
from twinlog.model.errors import CheckpointMoved, Unavailable, WrongSetting
from twinlog.model.event import Recorded
from twinlog.model.forms import NAME, Form, Forms, one, refuse_other, several
from twinlog.model.functions import not_plain
from twinlog.model.routing import routing_key_of
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView, Changes, Keyed, View, fold_keyed, keyed

_CACHED_ROWS = 20_000
_FORMS: Forms = {
    "name": NAME,
    "views": several(View, "views"),
    "store": Form(
        lambda given: hasattr(given, "commit") and not isinstance(given, type),
        "a store of views, such as PostgresViews(service.log, …)",
    ),
    "schema": one(Schema, "the schema of the service: schema=service.schema"),
    "source": NAME,
    "routing_key": NAME,
    "on_commit": Form(
        lambda given: callable(given) and not not_plain(given),
        "a plain function of the projection's name, a position and the changes",
    ),
}


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
        """``source``: the log to project; by default, what follows the last dot of ``name``.

        ``routing_key``: the routing key of the events that change a view; empty: all events do. ``on_commit`` is called
        after every commit, with the projection's name, the position of its views and the changed rows.
        """
        given = {"name": name, "views": views, "store": store, "schema": schema, "source": source}
        given |= {"routing_key": routing_key, "on_commit": on_commit}
        refuse_other(f"projection {name!r}", given, _FORMS)
        self.name = self.actor = name
        self.source = source or name.rpartition(".")[2]
        self.says_source = bool(source) or "." in name
        """Whether its log was named, by ``source`` or by the part of its name behind a dot."""
        every = all(view.wanted for view in views)
        wanted = list(dict.fromkeys(type for view in views for type in view.events)) if every else []
        self.types: Sequence[str] = schema.stored_types([type.DESCRIPTOR.name for type in wanted])
        self.routing_key = schema.stored_routing_key(wanted, routing_key)
        self.projected_key = routing_key
        """The routing key of the events that change a view; older ones may be stored under another key."""
        self.tables = views
        """Its views."""
        self.kept = views
        """Those that it keeps, by :meth:`keep`."""
        self._knows_kept = all(view.version == 1 for view in views)
        self.store = store.kept() if isinstance(store, RebuildableStore) else store
        self._wanted = schema.stored_names(wanted)
        self._shared = [view for view in views if view.shared and not view.append_only]
        self._on_commit = on_commit
        self.schema = schema
        self._cache: dict[AnyView, OrderedDict[str, Any]] = {view: OrderedDict() for view in views}
        self._prepared: tuple[Sequence[Recorded], Sequence[tuple[Recorded, Message]]] | None = None
        self._before: Mapping[str, Any] = (
            {"before": self._cache} if isinstance(store, NotingViewStore) else {}
        )

    def of_build(self, view: AnyView, build: Build) -> Projection:
        """The projection of another build of one of its views. It is sent the same events, so that both get equally
        far."""
        assert isinstance(self.store, RebuildableStore)
        name = consumer_of(build, self.name, self.source)
        of = Projection(
            name,
            [view],
            self.store.at(build.place),
            schema=self.schema,
            source=self.source,
            routing_key=self.projected_key,
            on_commit=self._on_commit,
        )
        of.types, of._wanted, of.routing_key = self.types, self._wanted, self.routing_key
        of.keep([view])
        if build.live_since:
            of.begin_noting()  # of what was read once, a watch may resume
        return of

    def begin_noting(self) -> None:
        """Notes changes for watches from now on. A build that is being filled has no readers, and needs no notes."""
        if isinstance(self.store, NotingViewStore):
            self.store.begin_noting()

    @property
    def views(self) -> Sequence[str]:
        """The names of its views."""
        return list(dict.fromkeys(view.name for view in self.tables))

    def keep(self, kept: Collection[AnyView]) -> None:
        """Chooses the views that it keeps from now on; other projections keep other builds of the rest."""
        self.kept = [view for view in self.tables if view in kept]
        self._knows_kept = True

    async def checkpoint(self) -> int:
        if not self._knows_kept:
            await self._find_kept()
        return await self.store.checkpoint(self.name)

    async def _find_kept(self) -> None:
        """Of a view that is declared in several versions, its home has one."""
        assert isinstance(self.store, RebuildableStore), "see store_mistakes"
        kept = set()
        for name in self.views:
            versions = sorted(view.version for view in self.tables if view.name == name)
            version = await home_version(self.store, name, versions, self.name.rpartition(".")[0])
            kept |= {view for view in self.tables if (view.name, view.version) == (name, version)}
        self.keep(kept)

    def forget(self) -> None:
        for cached in self._cache.values():
            cached.clear()

    def prepare(self, events: Sequence[Recorded]) -> None:
        """Decodes the next events ahead of time. A faulty event is reported when its turn comes."""
        with suppress(Exception):
            self._prepared = events, self._decode(events)

    def _decode(self, events: Sequence[Recorded]) -> Sequence[tuple[Recorded, Message]]:
        wanted = self._wanted
        mine = [event for event in events if event.type in wanted] if wanted else events
        decoded = self.schema.decode_all(mine)
        if self.projected_key != self.routing_key:
            decoded = [each for each in decoded if routing_key_of(each[1]) == self.projected_key]
        return decoded

    async def apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        try:
            return await self._apply(events, progress)
        except (CheckpointMoved, DeadLettersChanged):
            raise
        except Exception as error:
            if isinstance(error, Unavailable) and not isinstance(error, WrongSetting):
                raise
            # Whatever goes wrong with rows of another type says nothing of the event.
            if isinstance(self.store, TypedViewStore) and (refused := await self.store.retyped(self.kept)):
                self.forget()  # what was read of it
                raise refused from error
            raise

    async def _apply(self, events: Sequence[Recorded], progress: Progress) -> int:
        advance = progress.advance or await self._staying()
        prepared, self._prepared = self._prepared, None
        decoded = prepared[1] if prepared and prepared[0] is events else self._decode(events)
        events_of = {view: keyed(view, decoded) for view in self.kept}
        await self._fetch(events_of)
        changes = await self._commit(events_of, advance, progress)
        if isinstance(changes, Conflict):
            raise DeadLettersChanged(consumer=self.name)
        self._remember(changes)
        self._on_commit(self.name, advance.upto, changes)
        return advance.upto

    def store_mistakes(self) -> Sequence[str]:
        """Why its store cannot keep its views, each with a remedy."""
        found = []
        if isinstance(self.store, CheckedViewStore):
            found = [mistake for view in self.tables for mistake in self.store.mistakes(view)]
        if self._shared and not isinstance(self.store, SharedViewStore):
            names = " and ".join(view.name for view in self._shared)
            found.append(f"the store of {self.name!r} cannot share views ({names}); use one with `update`")
        if not self._knows_kept and not isinstance(self.store, RebuildableStore):
            found.append(
                f"the store of {self.name!r} cannot tell versions of a view apart; keep version 1 only"
            )
        return found

    async def _commit(
        self, events_of: Mapping[AnyView, Sequence[Keyed]], advance: CheckpointAdvance, progress: Progress
    ) -> Changes | Conflict:
        def fold(rows: Changes) -> Changes:
            return {view: fold_keyed(view, keys, rows.get(view, {})) for view, keys in events_of.items()}

        if not self._shared:
            changes = fold(self._cache)
            return await self.store.commit(changes, advance, progress.batch(), **self._before) or changes
        assert isinstance(self.store, SharedViewStore), "see store_mistakes"
        wanted = {
            view: list({key: None for keys, *_ in events_of[view] for key in keys})
            for view in self._shared
            if view in events_of
        }
        return await self.store.update(
            wanted,
            lambda rows: fold({**self._cache, **rows}),
            advance,
            progress.batch(),
            **self._before,
        )

    async def _staying(self) -> CheckpointAdvance:
        """For a replay: the rows it changes are the newest if the checkpoint is still where it was before."""
        position = await self.checkpoint()
        return CheckpointAdvance(self.name, position, position)

    async def _fetch(self, events_of: Mapping[AnyView, Sequence[Keyed]]) -> None:
        for view, events in events_of.items():
            if view.shares:
                continue
            cached = self._cache[view]
            firsts: dict[str, Message] = {}
            for keys, _, message in events:
                for key in keys:
                    if key not in cached:
                        firsts.setdefault(key, message)
            missing = [key for key, message in firsts.items() if type(message) is not view.created_by]
            if missing:
                cached.update(await self.store.rows(view, missing))

    def _remember(self, changes: Changes) -> None:
        for view, rows in changes.items():
            if not view.shares:
                cached = self._cache[view]
                cached.update(rows)
                while len(cached) > _CACHED_ROWS:
                    cached.popitem(last=False)
