"""The read side of a service: views of several logs, queries that wait for them, and watches of their rows."""

from __future__ import annotations

import asyncio
import math
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Protocol, TypeVar

from twinlog._aio.retrying import Retrying
from twinlog.consume import Consumer
from twinlog.consume.projection import Projection
from twinlog.log import say
from twinlog.log.view_builds import RebuildableStore
from twinlog.log.view_store import NotingViewStore, ViewStore, consumer_of
from twinlog.model.forms import NAME, SECONDS, Form, Forms, optional, refuse, refuse_other, several, shown
from twinlog.model.row_changes import NotedViews
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView, View
from twinlog.rpc import consistency, tokens
from twinlog.rpc.context import Incoming, time_left
from twinlog.rpc.freshness import ANY, Announcer, Freshness, Messages, ViewLagging
from twinlog.rpc.validation import Checks
from twinlog.rpc.watcher import Change, First
from twinlog.rpc.watches import Watches

T = TypeVar("T")

_TOKEN_WAIT_SECONDS = 5.0
"""How long a query without a deadline waits for the positions of its consistency token."""
_LOOK_SECONDS = 0.5
"""How long a query that does not wait may take to find out how far the views are."""
_FORGET_EVERY_SECONDS = 300.0


_VIEWS = several(View, "views")
_FORMS: Forms = {
    "views": Form(
        lambda given: (
            isinstance(given, Mapping)
            and bool(given)
            and all(isinstance(log, str) and _VIEWS.holds(views) for log, views in given.items())
        ),
        'views by log, one at least, in lists, as {"rooms": [ROOMS]}',
    ),
    "watched": optional(
        Form(
            lambda given: isinstance(given, Collection) and all(isinstance(each, View) for each in given),
            "views, as [ROOMS], or views and the fields of their rows to choose by, as {ROOMS: ['guest']}",
        )
    ),
    "name": NAME,
    "keep_changes_seconds": SECONDS,
}


def _wrong_watched(
    views: Mapping[str, Sequence[AnyView]], watched: Collection[AnyView] | NotedViews
) -> Iterator[str]:
    known = {view for each in views.values() for view in each}
    for view in watched:
        if view not in known:
            yield f"watched names view {view.name!r}, which no log feeds here; add it to the views of its log"
        fields = watched[view] if isinstance(watched, Mapping) else ()
        if isinstance(fields, str) or not all(isinstance(each, str) for each in fields):
            yield f"watched has {shown(fields)} for view {view.name!r}; give the names of fields, in a list"


def _wrong_lingers(views: Collection[str], linger_seconds: Any) -> Iterator[str]:
    if not isinstance(linger_seconds, Mapping):
        yield f'linger_seconds is {shown(linger_seconds)}; give seconds by log, as {{"rooms": 0.2}}'
    elif unknown := sorted({*linger_seconds} - {*views}):
        yield f"linger_seconds names {unknown[0]!r}, which feeds no view here; its logs are {', '.join(views)}"


class Subscribes(Protocol):
    """What a read model needs of its service."""

    name: str
    schema: Schema
    messages: Messages
    read_models: list[Collection[str]]
    """Of each read model, the names of the consumers that are to feed it."""

    def subscribe(self, *subscribers: Any, linger_seconds: float = 0.0) -> None:
        """Has a consumer handle a log's events."""

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task."""


class ReadModel:
    """Views, each fed by one consumer for each log, and what queries need to know of their freshness.

    reads = ReadModel(service, views, {"rooms": [STAYS], "payments": [STAYS]})
    reads.subscribe()
    """

    def __init__(
        self,
        service: Subscribes,
        store: ViewStore,
        views: Mapping[str, Sequence[AnyView]],
        *,
        watched: Collection[AnyView] | NotedViews | None = None,
        name: str = "",
        keep_changes_seconds: float = 3600.0,
    ) -> None:
        """``views``: by log, the views that it feeds; one that several logs feed is declared ``shared=True``.

        ``name`` is part of its consumers' names, which are ``service.log`` without one: give it one where the service
        has policies of the same logs.

        ``watched``: the views whose rows can be watched; by default all that are not append-only. As a mapping, it also
        names the fields by which :meth:`watch_rows` may choose rows. A watch of rows can be resumed up to
        ``keep_changes_seconds`` later.
        """
        refuse_other(
            of := f"ReadModel of {service.name}",
            {"views": views, "watched": watched, "name": name, "keep_changes_seconds": keep_changes_seconds},
            _FORMS,
        )
        refuse(of, _wrong_watched(views, {} if watched is None else watched))
        self._of = of
        self._service = service
        self._store = store
        self._whose = consistency.whose(store.log)
        self._views = views
        self._logs = {".".join(filter(None, (service.name, name, log))): log for log in views}
        service.read_models.append(self._logs)
        self.freshness = Freshness(self._logs, self._is_changing)
        self._watches: dict[AnyView, Watches] = {}
        chosen = self._noted(watched)
        names = None if watched is None else {view.name for view in chosen}
        self._announcer = Announcer(service.messages, store, self.freshness, names)
        self.committed = self._announcer.committed
        """The ``on_commit`` of a projection that is subscribed apart from this read model."""
        if isinstance(store, RebuildableStore):
            store.live.on_change.append(self._follow)
        service.start("announcer", self._announcer.run())
        if isinstance(store, NotingViewStore):
            self._note(chosen, store, keep_changes_seconds)

    def _noted(self, watched: Collection[AnyView] | NotedViews | None) -> NotedViews:
        if isinstance(watched, Mapping):
            return watched
        every = {view for views in self._views.values() for view in views if not view.append_only}
        return dict.fromkeys(every if watched is None else watched, ())

    def _note(self, views: NotedViews, store: NotingViewStore, keep_seconds: float) -> None:
        store.note(views)
        for view, fields in views.items():
            consumers = {name: log for name, log in self._logs.items() if view in self._views[log]}
            self._watches[view] = Watches(view, fields, consumers, store, self.freshness)
            self._service.start(f"watches of {view.name}", self._watches[view].run())
        self._service.start("changes of views", _forget(store, keep_seconds))

    def _is_changing(self) -> bool:
        return isinstance(self._store, RebuildableStore) and self._store.live.opened is not None

    def _follow(self, positions: Mapping[str, int]) -> None:
        """Other builds are read now, which other consumers keep."""
        assert isinstance(self._store, RebuildableStore)
        live, consumers = self._store.live.current, {}
        for declared, log in self._logs.items():
            for view in self._views[log]:
                build = live.get(view.name)
                consumers[consumer_of(build, declared, log) if build else declared] = log
        self.freshness.follow(consumers, positions)
        self.freshness.wake_all()

    def subscribe(self, linger_seconds: Mapping[str, float] = {}) -> None:
        """Feeds the views. ``linger_seconds``: by log, the pause between batches; by default none."""
        refuse(self._of, _wrong_lingers(self._views, linger_seconds))
        for consumer, log in self._logs.items():
            projection: Consumer = Projection(
                consumer,
                self._views[log],
                self._store,
                schema=self._service.schema,
                source=log,
                on_commit=self.committed,
            )
            self._service.subscribe(projection, linger_seconds=linger_seconds.get(log, 0.0))

    async def fresh(self, checks: Checks, request: Any, context: Incoming) -> None:
        """Ends the checks, and waits until the views are at the positions of the request's ``consistency_token``, and
        of that in the call's metadata; see :mod:`twinlog.rpc.consistency` for what else a caller may choose. The
        response's metadata tell how far the views are.

        Raises InvalidArgument, and ViewLagging where that takes longer than the call has, or 5 s without a deadline.
        """
        token = getattr(request, "consistency_token", "")
        in_request = checks.consistency_token("consistency_token", token, self._views) if token else {}
        checks.done()
        wanted, choice = consistency.wanted(context, self._views, in_request, self._whose)
        stale_by: Mapping[str, int] = {}
        if wanted and choice == consistency.WAIT:
            at_most = _TOKEN_WAIT_SECONDS if context.time_remaining() is None else math.inf
            await self.freshness.reached(wanted, time_left(context, at_most))
        elif wanted:
            stale_by = await self.freshness.staleness(wanted, time_left(context, _LOOK_SECONDS))
            if choice == consistency.FAIL:
                for log in stale_by:
                    raise ViewLagging(log=log, reached=self.freshness.positions[log], wanted=wanted[log])
        consistency.tell(context, self.freshness.token, self._whose, stale_by)

    async def after(self, token: str | Mapping[str, int], seconds: float = _TOKEN_WAIT_SECONDS) -> None:
        """Waits until the views have what a command did, by the ``consistency_token`` of its response.

        A cut, as :meth:`Past.cut` gives it, may take the place of the token; it counts as far as its logs feed the
        views. Raises InvalidArgument, and ViewLagging after ``seconds``.
        """
        if isinstance(token, str):
            wanted = tokens.parse(token, self._views)
        else:
            wanted = {log: position for log, position in token.items() if log in self._views and position}
        await self.freshness.reached(wanted, seconds)

    def watch_row(
        self,
        view: AnyView,
        key: str,
        resume_token: str = "",
        until: Callable[[Any], bool] = lambda _row: False,
    ) -> AsyncIterator[Change]:
        """The row of a view as it is, then each change of it, up to a state for which ``until`` holds.

        With a ``resume_token``, the last one that the watcher got, it goes on with what has changed since. Several
        changes within milliseconds, or while the watcher was away, come as one: the newest state. A change is read
        once, however many watch the view. Raises InvalidArgument for an invalid token, :class:`WatchTooSlow` where
        more than 100 changes wait to be taken, and Unavailable.
        """
        return self._watches_of(view).row(key, resume_token, until)

    def watch_rows(
        self,
        view: AnyView,
        by: Mapping[str, Any],
        resume_token: str = "",
        first: First | None = None,
    ) -> AsyncIterator[Change]:
        """Every change of a view's rows whose fields have the values ``by``; rows that no longer have them are told as
        such.

        It begins with the rows that ``first`` reads at that moment, none without it; with a ``resume_token``, with what
        has changed since, as in :meth:`watch_row`. The first message comes even if it is empty: its token is the one to
        resume with.

        Raises InvalidArgument for an invalid token, :class:`WatchExpired` for one from too long ago or where a
        release without notes of changes has projected, :class:`WatchTooSlow` and Unavailable.
        """
        return self._watches_of(view).many(by, resume_token, first)

    def _watches_of(self, view: AnyView) -> Watches:
        if view not in self._watches:
            raise ValueError(
                f"view {view.name} is not watched: name it in `watched`, in a store that notes changes"
            )
        return self._watches[view]

    async def watch(self, read: Callable[[], Awaitable[T]], key: str = ANY) -> AsyncIterator[T]:
        """What ``read`` gives, now and whenever that has changed.

        ``key``: that of the row that it reads; it is read again where a row with this key may have changed. Without
        one, as for a list with a filter, where any row may have.
        """
        last: Any = _NOTHING
        async with self.freshness.watching(key) as changed:
            while True:
                changed.clear()  # before it is read, so that no change is missed
                now = await read()
                if now != last:
                    last = now
                    yield now
                await changed.wait()


_NOTHING = object()


async def _forget(store: NotingViewStore, older_than_seconds: float) -> None:
    retrying = Retrying(
        say_failing=say.warning("view_changes.not_swept"), say_working=say.info("view_changes.sweeping")
    )
    while True:
        await asyncio.sleep(_FORGET_EVERY_SECONDS)
        await retrying.bear(store.forget_notes(older_than_seconds))
