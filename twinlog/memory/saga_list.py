"""The list of sagas in memory."""

from __future__ import annotations

from collections.abc import Sequence

from twinlog.log.saga_list import SagaKey, SelectedSagas
from twinlog.memory.views import MemoryViews
from twinlog.model.saga_list import SAGA_INSTANCES, ChosenSagas, SagaRow


class MemorySagaList(MemoryViews):
    """A list that lives as long as this object."""

    async def page(self, chosen: ChosenSagas, before: int, limit: int) -> Sequence[SagaRow]:
        return [row for row in reversed(self._rows(chosen)) if row.started_position < before][:limit]

    async def oldest(self, chosen: ChosenSagas, after: int, limit: int) -> Sequence[SagaRow]:
        return [row for row in self._rows(chosen) if row.started_position > after][:limit]

    async def select(self, chosen: ChosenSagas, limit: int) -> SelectedSagas:
        rows = self._rows(chosen)
        return SelectedSagas([SagaKey(row.saga, row.saga_id) for row in rows[:limit]], len(rows))

    def _rows(self, chosen: ChosenSagas) -> Sequence[SagaRow]:
        rows: list[SagaRow] = list(self.tables.get(SAGA_INSTANCES.name, {}).values())
        return sorted(filter(chosen.take, rows), key=lambda row: row.started_position)
