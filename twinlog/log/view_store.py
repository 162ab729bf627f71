"""The port through which views are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, Log
from twinlog.model.view import AnyView, Changes


class ViewStore(Protocol):
    """The store of the views of one database."""

    async def checkpoint(self, consumer: str) -> int:
        """The position up to which a consumer has projected its log."""
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
