"""Views in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlog.errors import CheckpointMoved
from twinlog.log import Batch, Conflict, Move
from twinlog.memory.log import MemoryLog
from twinlog.projection import AnyView, Changes


class MemoryViews:
    """Views that live as long as the object."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        """``log``: the one beside the views; none given: one of their own."""
        self.log = log or MemoryLog("views")
        self.tables: dict[str, dict[str, Any]] = {}
        self.checkpoints: dict[str, int] = {}

    async def checkpoint(self, consumer: str) -> int:
        return self.checkpoints.get(consumer, 0)

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        table = self.tables.get(view.name, {})
        return {key: table[key] for key in keys if key in table}

    async def commit(self, changes: Changes, move: Move, batch: Batch | None = None) -> Conflict | None:
        async with self.log.exclusive() as session:
            actual = self.checkpoints.get(move.consumer, 0)
            if actual != move.after:
                raise CheckpointMoved(consumer=move.consumer, actual=actual, expected=move.after)
            if batch and isinstance(conflict := await session.append(batch), Conflict):
                return conflict
            self.checkpoints[move.consumer] = move.upto
            for view, rows in changes.items():
                self.tables.setdefault(view.name, {}).update(rows)
            return None
