"""What the programs of a log have declared, and the tables of its sagas, in the log's database."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

import asyncpg

from twinlog.log.declarations import Garbled, Held, Kept, key
from twinlog.log.saga_tables import KeptTable, LiveInstance
from twinlog.log.view_store import Build
from twinlog.model.stored_forms import Form, Named
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Pool, fetch, on_connection
from twinlog.postgres.named_queries import QUERIES
from twinlog.v1.saga_pb2 import SagaStarted

_SCAN_SECONDS = 3_600
"""How long a start may look through the log, which it does only where a declaration has changed."""


class PostgresDeclarations:
    """The declarations of one database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def kept(self) -> Mapping[Named, Kept]:
        rows = await fetch(self._pool, QUERIES["declarations"])
        return {(kind, name): Kept(_form(kind, name, form), retired) for kind, name, form, retired in rows}

    async def keep(self, given: Mapping[Named, Form], *, anew: bool = False) -> None:
        if given:
            kinds, names = zip(*given, strict=True)
            texts = [json.dumps(form) for form in given.values()]
            await fetch(self._pool, QUERIES["keep_declarations"], kinds, names, texts, anew)

    async def retire(self, gone: Collection[Named]) -> None:
        if gone:
            await fetch(self._pool, QUERIES["retire_declarations"], *zip(*gone, strict=True))

    async def stored(self, asked: Collection[Held]) -> Collection[Held]:
        streams, types = zip(*asked, strict=True)

        async def look(connection: Connection) -> list[asyncpg.Record]:
            return await connection.fetch(QUERIES["stored_of"], streams, types, timeout=_SCAN_SECONDS)

        rows = [*map(tuple, await on_connection(self._pool, look))]
        return [held for held in asked if any(_is_of(held, row) for row in rows)]

    async def checkpoints(self) -> Mapping[str, int]:
        return dict(map(tuple, await fetch(self._pool, QUERIES["checkpoints"])))

    async def builds(self) -> Sequence[Build]:
        """All builds of all views; of views that have but their home none may be told."""
        return [Build(*row) for row in await fetch(self._pool, QUERIES["view_builds"])]

    async def columns(self) -> Mapping[str, Mapping[str, str]]:
        """By table, the types of its columns."""
        return _by_table(await fetch(self._pool, QUERIES["columns_of_tables"]))


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


async def columns_in(connection: asyncpg.Connection) -> Mapping[str, Mapping[str, str]]:
    """By table, the types of its columns, as the caller's transaction sees them."""
    return _by_table(await connection.fetch(QUERIES["columns_of_tables"]))


def _form(kind: str, name: str, stored: object) -> Form:
    """Raises Garbled."""
    if not isinstance(stored, dict) or not all(isinstance(each, str) for each in stored.values()):
        raise Garbled(table="declarations", where=key(kind=kind, name=name))
    return stored


def _by_table(rows: Sequence[asyncpg.Record]) -> Mapping[str, Mapping[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for table, name, type in rows:
        found.setdefault(table, {})[name] = type
    return found


def _is_of(held: Held, row: Held) -> bool:
    return row == ("", "") or all(asked in ("", found) for asked, found in zip(held, row, strict=True))
