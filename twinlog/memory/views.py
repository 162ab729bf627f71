"""Views in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, LogSession
from twinlog.memory.log import MemoryLog
from twinlog.model.errors import CheckpointMoved
from twinlog.model.view import AnyView, Changes


class MemoryViews:
    """Views that live as long as this object."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        """``log``: the log beside the views; by default a new one."""
        self.log = log or MemoryLog("views")
        self.tables: dict[str, dict[str, Any]] = {}
        self.positions: dict[str, int] = {}
        """The checkpoints, by consumer."""

    async def checkpoint(self, consumer: str) -> int:
        return self.positions.get(consumer, 0)

    async def checkpoints(self) -> Mapping[str, int]:
        return dict(self.positions)

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        table = self.tables.get(view.name, {})
        return {key: table[key] for key in keys if key in table}

    async def row(self, view: AnyView, key: str) -> Any | None:
        """One row; None where there is none."""
        return self.tables.get(view.name, {}).get(key)

    async def commit(
        self, changes: Changes, advance: CheckpointAdvance, batch: Batch | None = None
    ) -> Conflict | None:
        async with self.log.exclusive() as session:
            return await self._commit(session, changes, advance, batch)

    async def update(
        self,
        wanted: Mapping[AnyView, Sequence[str]],
        change: Callable[[Changes], Changes],
        advance: CheckpointAdvance,
        batch: Batch | None = None,
    ) -> Changes | Conflict:
        async with self.log.exclusive() as session:
            changes = change({view: await self.rows(view, keys) for view, keys in wanted.items()})
            return await self._commit(session, changes, advance, batch) or changes

    async def _commit(
        self, session: LogSession, changes: Changes, advance: CheckpointAdvance, batch: Batch | None
    ) -> Conflict | None:
        actual = self.positions.get(advance.consumer, 0)
        if actual != advance.after:
            raise CheckpointMoved(consumer=advance.consumer, actual=actual, expected=advance.after)
        if batch and isinstance(conflict := await session.append(batch), Conflict):
            return conflict
        self.positions[advance.consumer] = advance.upto
        self.log.note_handled(advance)
        for view, rows in changes.items():
            table = self.tables.setdefault(view.name, {})
            for key, row in rows.items():
                if row is None:
                    table.pop(key, None)
                else:
                    table[key] = row
        return None
