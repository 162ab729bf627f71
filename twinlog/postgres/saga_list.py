"""The list of sagas in Postgres, beside their log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twinlog.log.ports import Log
from twinlog.log.saga_list import SagaCount, SagaKey, SelectedSagas
from twinlog.model.saga_list import NOT_ENDED, SAGA_INSTANCES, ChosenSagas, SagaRow
from twinlog.postgres.views import PostgresViews


class PostgresSagaList(PostgresViews):
    """The table ``saga_instances``; it may be emptied, and is filled anew once its checkpoint is set to 0."""

    def __init__(self, log: Log) -> None:
        super().__init__(log, "twinlog.postgres.sql", {SAGA_INSTANCES.name: SagaRow})

    async def page(self, chosen: ChosenSagas, before: int, limit: int) -> Sequence[SagaRow]:
        rows = await self.query("saga_instances_page", *_filters(chosen), before, limit)
        return [SagaRow(*row) for row in rows]

    async def oldest(self, chosen: ChosenSagas, after: int, limit: int) -> Sequence[SagaRow]:
        rows = await self.query("saga_instances_oldest", *_filters(chosen), after, limit)
        return [SagaRow(*row) for row in rows]

    async def select(self, chosen: ChosenSagas, limit: int) -> SelectedSagas:
        rows = await self.query("saga_instances_chosen", *_filters(chosen), limit)
        return SelectedSagas([SagaKey(row[0], row[1]) for row in rows], rows[0][2] if rows else 0)

    async def census(self) -> Sequence[SagaCount]:
        rows = await self.query("saga_instances_census", sorted(NOT_ENDED))
        return [SagaCount(*row) for row in rows]


def _filters(chosen: ChosenSagas) -> tuple[Any, ...]:
    return sorted(chosen.statuses), chosen.started_before, chosen.saga, chosen.subject
