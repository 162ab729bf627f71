"""The read side of a service: views of several logs, queries that wait for them, and watches of their rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from twinlog.consume import Consumer
from twinlog.consume.projection import Projection
from twinlog.log.view_builds import RebuildableStore, consumer_of
from twinlog.log.view_store import ViewStore
from twinlog.model.schema import Schema
from twinlog.model.view import AnyView
from twinlog.rpc import tokens
from twinlog.rpc.context import Incoming, time_left
from twinlog.rpc.freshness import ANY, Announcer, Freshness, Messages
from twinlog.rpc.validation import Checks

T = TypeVar("T")

_TOKEN_WAIT_SECONDS = 5.0
"""How long a query without a deadline waits for the positions of its consistency token."""


class Subscribes(Protocol):
    """What a read model needs of its service."""

    name: str
    schema: Schema
    messages: Any

    def subscribe(self, *subscribers: Any, linger_seconds: float = 0.0) -> None:
        """Has a consumer handle a log's events."""
        ...

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs a task."""
        ...


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
        watched: Collection[AnyView] | None = None,
        name: str = "",
    ) -> None:
        """``views``: those that each log feeds; one that several logs feed is declared ``shared=True``.

        ``name`` is part of its consumers' names, which are ``service.log`` without one: give it one where the service
        has policies of the same logs.

        ``watched``: the views whose rows are watched; by default all that do not only grow.
        """
        self._service = service
        self._store = store
        self._views = views
        self._logs = {".".join(filter(None, (service.name, name, log))): log for log in views}
        messages: Messages = service.messages
        self.freshness = Freshness(self._logs)
        names = None if watched is None else {view.name for view in watched}
        self._announcer = Announcer(messages, store, self.freshness, names)
        self.committed = self._announcer.committed
        """What a projection of one's own calls after its commits, as ``on_commit``."""
        if isinstance(store, RebuildableStore):
            store.live.on_change.append(self._follow)
        service.start("announcer", self._announcer.run())

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
        """Ends the checks, and waits until the views are at the positions of the request's ``consistency_token``.

        Raises InvalidArgument, and ViewLagging where that takes longer than the call has, or 5 s without a deadline.
        """
        wanted = checks.consistency_token("consistency_token", request.consistency_token, self._views)
        checks.done()
        if wanted:
            await self.freshness.reached(wanted, time_left(context, _TOKEN_WAIT_SECONDS))

    async def after(self, token: str, seconds: float = _TOKEN_WAIT_SECONDS) -> None:
        """Waits until the views have what a command did, by the ``consistency_token`` of its response.

        Raises InvalidArgument, and ViewLagging after ``seconds``.
        """
        await self.freshness.reached(tokens.parse(token, self._views), seconds)

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
