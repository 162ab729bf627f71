"""The port through which views are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, Log
from twinlog.model.view import AnyView, Changes


class ViewStore(Protocol):
    """The store of the views of one database."""

    async def checkpoint(self, consumer: str) -> int:
        """The position up to which a consumer has projected its log."""
        ...

    async def checkpoints(self) -> Mapping[str, int]:
        """The position up to which each consumer has projected its log."""
        ...

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        """The requested rows that exist, by key."""
        ...

    @property
    def log(self) -> Log:
        """The log beside the views, which records dead letters."""
        ...

    async def commit(
        self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None = None
    ) -> Conflict | None:
        """Stores rows, advances the checkpoint and appends a batch, in one transaction.

        Raises CheckpointMoved if the checkpoint is elsewhere; returns the conflict if the batch has one. In both
        cases nothing is stored.
        """
        ...


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
        ...


@runtime_checkable
class CheckedViewStore(Protocol):
    """A store that can tell what is wrong with a view before it has any row."""

    def mistakes(self, view: AnyView) -> Sequence[str]:
        """What keeps a view from being stored, each with the way out; empty: nothing."""
        ...
