"""The port of where views are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, Log
from twinlog.model.view import AnyView, Changes


class ViewStore(Protocol):
    """Where views are kept."""

    async def checkpoint(self, consumer: str) -> int:
        """The position up to which a log is projected."""
        ...

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        """Those of the wanted rows that there are."""
        ...

    @property
    def log(self) -> Log:
        """The log beside the views, where dead letters are recorded."""
        ...

    async def commit(
        self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None = None
    ) -> Conflict | None:
        """Stores rows, moves the checkpoint and appends a batch, in one transaction.

        Raises CheckpointMoved where the checkpoint is elsewhere; gives the conflict where the batch has one. In
        both cases nothing is stored.
        """
        ...
