"""The tables of sagas, kept in the database of the log whose instances run on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from twinlog.log.saga_tables import KeptTable, LiveInstance
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.named_queries import QUERIES
from twinlog.v1.saga_pb2 import SagaStarted


class PostgresSagaTables:
    """The tables of one database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def keep(self, saga: str, tables: Mapping[int, KeptTable]) -> Mapping[int, KeptTable]:
        if tables:
            shapes = [json.dumps(kept.shape) for kept in tables.values()]
            prints = [kept.fingerprint for kept in tables.values()]
            await fetch(self._pool, QUERIES["keep_saga_tables"], saga, list(tables), shapes, prints)
        rows = await fetch(self._pool, QUERIES["saga_tables"], saga)
        return {row[0]: KeptTable(*row[1:]) for row in rows}

    async def retire(self, saga: str, versions: Sequence[int]) -> None:
        if versions:
            await fetch(self._pool, QUERIES["retire_saga_tables"], saga, list(versions))

    async def live_instances(self, aggregate: str) -> Sequence[LiveInstance]:
        rows = await fetch(self._pool, QUERIES["live_sagas"], aggregate)
        return [LiveInstance(row[0], SagaStarted.FromString(row[1]).version) for row in rows]
