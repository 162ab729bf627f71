"""Views over memory, a round trip away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from twinlog.log.ports import Appended, Batch, CheckpointAdvance, Conflict
from twinlog.log.view_store import ViewMoment
from twinlog.memory.views import MemoryViews
from twinlog.model.row_changes import NO_ROWS, NotedViews
from twinlog.model.view import AnyView, Changes
from twinlog.testing.simulation.log import LogServer, RemoteLog
from twinlog.testing.simulation.network import Client, Network, Remote, Store, asked, at_once

T = TypeVar("T")


class ViewServer(Store):
    """The views beside a log."""

    def __init__(
        self,
        name: str,
        views: MemoryViews,
        log: LogServer,
        committed: Callable[[Changes, CheckpointAdvance], None],
    ) -> None:
        super().__init__(name)
        self.views = views
        self.log = log
        self.committed = committed
        """Told of every commit, at its moment."""

    def commit(
        self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None, before: Changes
    ) -> Conflict | None:
        """Stores or refuses."""
        first = len(self.views.log.events) + 1
        conflict = at_once(self.views.commit(changes, advance, batch, before=before))
        if conflict is None:
            self._tell(changes, advance, batch, first)
        return conflict

    def update(
        self,
        wanted: Mapping[AnyView, Sequence[str]],
        change: Callable[[Changes], Changes],
        advance: CheckpointAdvance,
        batch: Batch | None,
        before: Changes,
    ) -> Changes | Conflict:
        """Changes rows that others change, too, or refuses."""
        first = len(self.views.log.events) + 1
        done = at_once(self.views.update(wanted, change, advance, batch, before=before))
        if not isinstance(done, Conflict):
            self._tell(done, advance, batch, first)
        return done

    def _tell(self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None, first: int) -> None:
        if batch:
            self.log.committed(batch, Appended(first))
        self.committed(changes, advance)


class RemoteViews(Remote[ViewServer]):
    """Views as a process sees them."""

    def __init__(self, network: Network, client: Client, server: ViewServer) -> None:
        super().__init__(network, client, server)
        self.log = RemoteLog(network, client, server.log)

    checkpoint = asked("checkpoint", MemoryViews.checkpoint)
    checkpoints = asked("checkpoints", MemoryViews.checkpoints)
    rows = asked("rows", MemoryViews.rows)

    @property
    def _memory(self) -> MemoryViews:
        return self._server.views

    def note(self, views: NotedViews) -> None:
        self._memory.note(views)

    def fields_noted(self, view: AnyView) -> Sequence[str] | None:
        return self._memory.fields_noted(view)

    def begin_noting(self) -> None:
        self._memory.begin_noting()

    async def forget_notes(self, older_than_seconds: float) -> None:
        await self._ask("forget", lambda: None)

    async def at_once(self, read: Callable[[ViewMoment], Awaitable[T]]) -> T:
        def at_the_store() -> T:
            reading: Coroutine[Any, Any, T] = self._memory.at_once(read)
            return at_once(reading)

        return await self._ask("look", at_the_store)

    async def commit(
        self,
        changes: Changes,
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Conflict | None:
        sent = {view: _some(before.get(view, {}), rows) for view, rows in changes.items()}
        return await self._ask("commit", lambda: self._server.commit(changes, advance, batch, sent))

    async def update(
        self,
        wanted: Mapping[AnyView, Sequence[str]],
        change: Callable[[Changes], Changes],
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Changes | Conflict:
        sent = {view: dict(rows) for view, rows in before.items()}
        return await self._ask("update", lambda: self._server.update(wanted, change, advance, batch, sent))


def _some(rows: Mapping[str, Any], keys: Mapping[str, Any]) -> Mapping[str, Any]:
    """The rows with these keys, as they are when they are sent."""
    return {key: rows[key] for key in keys if key in rows}
