"""The list of sagas in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from twinlog.log.saga_list import SagaCount, SagaKey, SelectedSagas
from twinlog.memory.views import MemoryViews
from twinlog.model.saga_list import NOT_ENDED, SAGA_INSTANCES, ChosenSagas, SagaRow
from twinlog.v1.saga_service_pb2 import SagaStatus


class MemorySagaList(MemoryViews):
    """A list that lives as long as this object."""

    async def page(self, chosen: ChosenSagas, before: int, limit: int) -> Sequence[SagaRow]:
        return [row for row in reversed(self._rows(chosen)) if row.started_position < before][:limit]

    async def oldest(self, chosen: ChosenSagas, after: int, limit: int) -> Sequence[SagaRow]:
        return [row for row in self._rows(chosen) if row.started_position > after][:limit]

    async def select(self, chosen: ChosenSagas, limit: int) -> SelectedSagas:
        rows = self._rows(chosen)
        return SelectedSagas([SagaKey(row.saga, row.saga_id) for row in rows[:limit]], len(rows))

    async def census(self) -> Sequence[SagaCount]:
        found: dict[tuple[str, SagaStatus.ValueType], list[datetime]] = {}
        rows: list[SagaRow] = list(self.tables.get(SAGA_INSTANCES.name, {}).values())
        for row in rows:
            if row.status in NOT_ENDED:
                found.setdefault((row.saga, row.status), []).append(row.started_at)
        return [SagaCount(*of, len(started), min(started)) for of, started in found.items()]

    def _rows(self, chosen: ChosenSagas) -> Sequence[SagaRow]:
        rows: list[SagaRow] = list(self.tables.get(SAGA_INSTANCES.name, {}).values())
        return sorted(filter(chosen.take, rows), key=lambda row: row.started_position)
