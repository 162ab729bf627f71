"""The port through which views are stored, and what a store has of each: builds (:mod:`twinlog.log.view_builds`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, Log
from twinlog.model.errors import RowsRefused
from twinlog.model.row_changes import NO_ROWS, Crossing, Marks, Noted, NotedViews
from twinlog.model.view import AnyView, Changes, versioned

T = TypeVar("T")

_WIDER = {
    "smallint": {"integer", "bigint"},
    "integer": {"bigint"},
    "real": {"double precision"},
    "character varying": {"text"},
}
"""Column types that another one holds as they are."""

NEVER = datetime.fromtimestamp(0, UTC)
"""When a build was begun of which nobody has noted it, as of a home."""


class Build(NamedTuple):
    """One build of a view."""

    view: str
    number: int
    """1, 2, 3 … within the view."""
    version: int
    """The version of the view that it is of."""
    home: bool
    """Whether it is the table that a migration made, which the declared projections keep."""
    live: bool
    """Whether queries read it."""
    dropped: bool
    """Whether nobody keeps it any more; only a home is remembered then."""
    begun_at: datetime
    live_since: datetime | None = None
    live_until: datetime | None = None
    """When queries left it last; None: never."""
    share: int = 100
    """Percent of the time that it may be filled in."""
    may_lack: bool = False
    """Whether it was confirmed, when queries began to read it, that it may lack events which it has set aside."""

    @property
    def place(self) -> str:
        """Where its table is; empty: at home."""
        return "" if self.home else f"{self.view}@{self.number}"

    @property
    def table(self) -> str:
        """The name of its table, wherever that is."""
        return versioned(self.view, self.version)


def consumer_of(build: Build, projection: str, source: str) -> str:
    """The name of the consumer that keeps a build up to date with a log, by that of the declared projection."""
    prefix = projection.rpartition(".")[0] or projection
    return projection if build.home else f"{prefix}.{build.place}.{source}"


def holds(now: str, was: str) -> bool:
    """Whether a column of one type takes all that one of another type took, and gives it back as it was."""
    return now == was or now in _WIDER.get(was.partition("(")[0], ())


class ViewStore(Protocol):
    """The store of the views of one database."""

    async def checkpoint(self, consumer: str) -> int:
        """The position up to which a consumer has projected its log."""

    async def checkpoints(self) -> Mapping[str, int]:
        """The position up to which each consumer has projected its log."""

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        """The requested rows that exist, by key."""

    @property
    def log(self) -> Log:
        """The log beside the views, which records dead letters."""

    async def commit(
        self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None = None
    ) -> Conflict | None:
        """Stores rows, advances the checkpoint and appends a batch, in one transaction.

        Raises CheckpointMoved if the checkpoint is elsewhere; returns the conflict if the batch has one. In both
        cases nothing is stored.
        """


@runtime_checkable
class SharedViewStore(ViewStore, Protocol):
    """A store whose rows several projections may change."""

    async def update(
        self,
        wanted: Mapping[AnyView, Sequence[str]],
        change: Callable[[Changes], Changes],
        advance: CheckpointAdvance,
        batch: Batch | None = None,
    ) -> Changes | Conflict:
        """Reads the wanted rows, stores what ``change`` makes of them, and commits the rest as :meth:`commit` does.

        All in one transaction, in which nobody else updates rows of these views. Returns the changes, or the conflict
        if the batch has one.
        """


class ViewMoment(Protocol):
    """A store of views at one moment: whatever is read of it belongs together."""

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        """The requested rows that exist, by key."""

    async def query(self, name: str, *arguments: Any) -> Sequence[Any]:
        """The rows of a named query, where the store has such."""

    async def noted(
        self, view: AnyView, consumers: Sequence[str], since: Marks, most: int, upto: Marks | None = None
    ) -> Noted:
        """The notes about a view after some marks, and where these consumers are; ``upto``: where they were.

        Of consumers without a mark only that. Once ``most`` keys were found, the older notes are left out.
        """

    def reads(self, view: AnyView) -> Build | None:
        """The build of a view whose rows are read; None: its home."""

    async def build(self, view: AnyView, number: int) -> Build | None:
        """A build that is kept; number 0: the home. None: it is not kept any more."""

    async def differing(
        self, view: AnyView, other: Build, fields: Sequence[str], most: int
    ) -> Mapping[str, Sequence[Any] | None] | None:
        """The keys of the rows that are not the same in another build, as far as both have the same columns.

        Each with the values of these fields there; None: there is no such row there. None for all where there are more
        than ``most``, or where that build has not all of these fields.
        """

    async def crossing(self, view: AnyView, number: int) -> Crossing | None:
        """Where watches of a build go on that was dropped; number 0: the home. None: that is not known."""


@runtime_checkable
class NotingViewStore(ViewStore, Protocol):
    """A store that notes which rows change, so that watches miss none; see :mod:`twinlog.model.row_changes`.

    Its ``commit`` and ``update`` take the rows as they were ``before``.
    """

    def note(self, views: NotedViews) -> None:
        """Has the changes of these views noted from now on, too."""

    def fields_noted(self, view: AnyView) -> Sequence[str] | None:
        """The fields whose values before a change are noted; None: no change of the view is."""

    def begin_noting(self) -> None:
        """What is seen of the builds in a place notes changes from now on: those that are being filled need none."""

    async def forget_notes(self, older_than_seconds: float) -> None:
        """Drops older notes."""

    async def at_once(self, read: Callable[[ViewMoment], Awaitable[T]]) -> T:
        """What ``read`` makes of one moment; it may be called again. Raises Unavailable."""

    async def commit(
        self,
        changes: Changes,
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Conflict | None:
        """As that of every store. ``before``: the rows before the changes, as far as there were any."""


@runtime_checkable
class CheckedViewStore(Protocol):
    """A store that can tell what is wrong with a view before it has any row."""

    def mistakes(self, view: AnyView) -> Sequence[str]:
        """What keeps a view from being stored, each with the way out; empty: nothing."""


@runtime_checkable
class TypedViewStore(ViewStore, Protocol):
    """A store whose columns have types, which somebody may change."""

    async def retyped(self, views: Sequence[AnyView]) -> RowsRefused | None:
        """A column of views that may not take what it took, or give back something else. Raises Unavailable."""
