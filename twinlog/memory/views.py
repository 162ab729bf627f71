"""Views in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import CheckpointMoved
from twinlog.model.view import AnyView, Changes


class MemoryViews:
    """Views that live as long as this object."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        """``log``: the log beside the views; by default a new one."""
        self.log = log or MemoryLog("views")
        self.tables: dict[str, dict[str, Any]] = {}
        self.checkpoints: dict[str, int] = {}

    async def checkpoint(self, consumer: str) -> int:
        return self.checkpoints.get(consumer, 0)

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        table = self.tables.get(view.name, {})
        return {key: table[key] for key in keys if key in table}

    async def commit(
        self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None = None
    ) -> Conflict | None:
        async with self.log.exclusive() as session:
            actual = self.checkpoints.get(advance.consumer, 0)
            if actual != advance.after:
                raise CheckpointMoved(consumer=advance.consumer, actual=actual, expected=advance.after)
            if batch and isinstance(conflict := await session.append(batch), Conflict):
                return conflict
            self.checkpoints[advance.consumer] = advance.upto
            self.log.note_handled(advance)
            for view, rows in changes.items():
                self.tables.setdefault(view.name, {}).update(rows)
            return None
