"""Builds of views in Postgres: a table in its own schema for each build that is not the home."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg

from twinlog.log.view_builds import (
    KEPT_SECONDS,
    BuildGone,
    OlderAtWork,
    RebuildUnderWay,
    Rows,
    SetAsideMeanwhile,
)
from twinlog.log.view_store import Build
from twinlog.model.row_changes import Before, Crossing, Mark, Marks
from twinlog.model.view import AnyView
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Pool, connection_of, fetch, go_to, on_connection
from twinlog.postgres.named_queries import load_queries

T = TypeVar("T")

_COMPARE_SECONDS = 3_600.0
_UNEQUAL = re.compile(r"(json|xml|point|line|lseg|box|path|polygon|circle)\b")
"""Types whose values Postgres does not compare, or by their size only."""
_FEW = 10_000
"""Up to this many rows are counted; beyond, an estimate is enough."""
_PATIENT = "SET LOCAL lock_timeout = '2s'"
_LOOKS, _LOOKS_APART_SECONDS = 10, 0.2
"""Together longer than the pauses after which a program of release 0.1 renews a lease, or asks for it."""


class ViewBuilds:
    """The builds of the views of one database."""

    def __init__(self, pool: Pool, queries: Mapping[str, str]) -> None:
        self.pool = pool
        self._queries = dict(queries)

    async def builds(self) -> Sequence[Build]:
        return [Build(*row) for row in await fetch(self.pool, self._queries["view_builds"])]

    async def settle_home(self, view: str, version: int) -> None:
        await fetch(self.pool, self._queries["settle_home"], view, version)

    async def begin_build(self, view: AnyView, home_version: int, share: int = 100) -> Build:
        async def work(connection: Connection) -> Build:
            async with connection.transaction():
                await connection.execute(self._queries["lock_builds"], view.name)
                await connection.execute(self._queries["settle_home"], view.name, home_version)
                if begun := await connection.fetchval(self._queries["build_under_way"], view.name):
                    raise RebuildUnderWay(view=view.name, build=begun)
                row = await connection.fetchrow(self._queries["begin_build"], view.name, view.version, share)
                assert row is not None
                build, table = Build(*row), quoted(view.table)
                schema = quoted(build.place)
                await connection.execute(
                    f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.{table} (LIKE {table} INCLUDING ALL)"
                )
                await connection.execute(self._queries["builds_rule_out_older"])
                return build

        await self._refuse_beside_older(view)
        return await self._at_home(work)

    async def _refuse_beside_older(self, view: AnyView) -> None:
        """Raises OlderAtWork. A standby leaves no other trace than its sessions, which show their last statement."""
        for _ in range(_LOOKS):
            if found := await fetch(self.pool, self._queries["older_sessions"]):
                raise OlderAtWork(view=view.name, sessions=", ".join(row[0] for row in found))
            await asyncio.sleep(_LOOKS_APART_SECONDS)

    async def switch(
        self, to: Build, live: Build, consumers: Mapping[str, str], letters: Mapping[str, int] | None
    ) -> Mapping[str, int]:
        async def work(connection: Connection) -> Mapping[str, int]:
            async with connection.transaction():
                await connection.execute(_PATIENT)
                await connection.execute(self._queries["lock_builds"], to.view)
                await connection.execute(self._queries["settle_home"], live.view, live.version)
                names = [*consumers, *consumers.values()]
                stands = dict(map(tuple, await connection.fetch(self._queries["lock_checkpoints"], names)))
                behind = {
                    new: stands.get(old, 0) - stands.get(new, 0)
                    for old, new in consumers.items()
                    if stands.get(new, 0) < stands.get(old, 0)
                }
                if behind:
                    return behind
                if letters is not None:
                    await self._refuse_others(connection, letters)
                left = await connection.fetchval(self._queries["leave_build"], live.view, live.number)
                enter = self._queries["enter_build"]
                if not left or not await connection.fetchval(enter, to.view, to.number, letters is None):
                    raise BuildGone(view=to.view, build=to.number)
                return {}

        return await on_connection(self.pool, work)

    async def _refuse_others(self, connection: Connection, letters: Mapping[str, int]) -> None:
        """An event is set aside together with the checkpoint, which is locked: none comes between."""
        found = await connection.fetch(self._queries["versions_of_letters"], [*letters])
        if dict.fromkeys(letters, 0) | dict(map(tuple, found)) != letters:
            raise SetAsideMeanwhile

    async def kept_for(self, build: Build) -> float:
        return await on_connection(self.pool, lambda connection: self._kept_for(connection, build))

    async def _kept_for(self, connection: Connection, build: Build) -> float:
        given = build.view, build.number, KEPT_SECONDS
        left = await connection.fetchval(self._queries["build_kept_for"], *given)
        return min(max(0.0, float(left or 0)), KEPT_SECONDS)

    async def drop_build(
        self, build: Build, consumers: Sequence[str], table: str, crossing: Crossing | None = None
    ) -> float:
        async def work(connection: Connection) -> float:
            async with connection.transaction():
                await connection.execute(_PATIENT)  # whoever waits for the table holds up all who come after
                await connection.execute(self._queries["lock_builds"], build.view)
                if left := await self._kept_for(connection, build):
                    return left
                if not await connection.fetchval(self._queries["drop_build"], build.view, build.number):
                    raise BuildGone(view=build.view, build=build.number)
                if crossing:
                    await connection.execute(self._queries["note_crossing"], *_noted(build.view, crossing))
                if build.home:
                    await connection.execute(f"TRUNCATE {quoted(table)}")
                else:
                    await connection.execute(f"DROP SCHEMA {quoted(build.place)} CASCADE")
                    await connection.execute(self._queries["forget_checkpoints"], [*consumers])
                await connection.execute(self._queries["builds_rule_out_older"])
                return 0.0

        return await self._at_home(work)

    async def compare_builds(
        self, old: Build, new: Build, views: tuple[AnyView, AnyView], keys: Sequence[str] | None, limit: int
    ) -> Rows:
        tables = [table_of(build, view.table) for build, view in zip((old, new), views, strict=True)]
        chosen = () if keys is None else ([*keys],)
        async with connection_of(self.pool) as connection:
            await go_to(connection, "")
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute("SET LOCAL enable_seqscan = on")
                shapes = [await connection.fetch(self._queries["columns_of"], table) for table in tables]
                stands = await connection.fetch(self._queries["checkpoints"])
                comparing = _Comparing(tables, shapes)
                counts = await connection.fetchrow(comparing.counts(keys), *chosen, timeout=_COMPARE_SECONDS)
                rows = await connection.fetch(comparing.rows(keys), limit, *chosen, timeout=_COMPARE_SECONDS)
        assert counts is not None
        columns = [[row[0] for row in shape] for shape in shapes]
        return Rows(
            counts[0],
            {row[0]: comparing.why(row[1], row[2]) for row in rows},
            (counts[1], counts[2], counts[3]),
            dict(map(tuple, stands)),
            [name for name in columns[1] if name not in columns[0]],
            [name for name in columns[0] if name not in columns[1]],
        )

    async def count_rows(self, build: Build, table: str) -> int | None:
        name = table_of(build, table)

        async def work(connection: Connection) -> int | None:
            few = f"SELECT count(*) FROM (SELECT FROM {name} LIMIT {_FEW + 1})"
            try:
                counted = int(await connection.fetchval(few))
                if counted <= _FEW:
                    return counted
                return max(_FEW, int(await connection.fetchval(self._queries["estimated_rows"], name)))
            except asyncpg.UndefinedTableError:  # dropped since it was looked up
                return None

        return await self._at_home(work)

    async def _at_home(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Does work where names mean the homes."""

        async def at_home(connection: Connection) -> T:
            await go_to(connection, "")
            return await work(connection)

        return await on_connection(self.pool, at_home)


async def builds_in(pool: Pool) -> Sequence[Build]:
    """All builds in a database, which may be of a program that knew of none."""
    queries = load_queries("twinlog.postgres.sql")
    [(there,)] = await fetch(pool, "SELECT to_regclass('view_builds') IS NOT NULL")
    return await ViewBuilds(pool, queries).builds() if there else []


async def differing(
    connection: Connection,
    queries: Mapping[str, str],
    tables: tuple[str, str],
    fields: Sequence[str],
    most: int,
) -> Mapping[str, Sequence[Any] | None] | None:
    """The keys of rows that differ in two tables, with the values of these fields in the first, None: no row there.

    None for all where there are more than ``most``, or where the first table lacks some of these fields.
    """
    await connection.execute("SET LOCAL enable_seqscan = on")
    shapes = [await connection.fetch(queries["columns_of"], table) for table in tables]
    if not {*fields} <= {row[0] for row in shapes[0]}:
        return None
    comparing = _Comparing(tables, shapes)
    rows = await connection.fetch(comparing.values(fields), most + 1, timeout=_COMPARE_SECONDS)
    return None if len(rows) > most else {row[0]: row[2:] if row[1] else None for row in rows}


def _noted(view: str, crossing: Crossing) -> Sequence[Any]:
    """A crossing as it is stored."""
    changed = crossing.changed.values()
    return (
        view,
        crossing.build,
        dict(crossing.marks),
        crossing.entered,
        dict(crossing.reached),
        [*crossing.changed],
        [*next((each.fields for each in changed), ())],
        [each.values for each in changed],
    )


def crossing_of(row: Sequence[Any]) -> Crossing:
    """A stored one."""
    build, marks, entered, reached, keys, fields, before = row
    changed = {key: Before(fields, values) for key, values in zip(keys, before, strict=True)}
    return Crossing(build, _marks(marks), entered, _marks(reached), changed)


def _marks(stored: Mapping[str, Sequence[int]]) -> Marks:
    return {log: Mark(*mark) for log, mark in stored.items()}


class _Comparing:
    """The statements that compare two tables."""

    def __init__(self, tables: Sequence[str], shapes: Sequence[Sequence[Sequence[Any]]]) -> None:
        """``shapes``: of each table its columns, as the query ``columns_of`` gives them.

        A table without a primary key has its first column for one.
        """
        self._tables = tables
        types = [{name: type for name, _, type in shape} for shape in shapes]
        self._key = [name for name, is_key, _ in shapes[0] if is_key] or [*types[0]][:1]
        self._common = [name for name in types[0] if name in types[1]]
        self._as_text = {
            name
            for name in self._common
            if types[0][name] != types[1][name] or _UNEQUAL.match(types[0][name])
        }

    def counts(self, keys: Sequence[str] | None) -> str:
        """All rows, and those that are changed, missing and added."""
        first = quoted(self._key[0])
        return (
            f"SELECT count(*), count(*) FILTER (WHERE a.{first} IS NOT NULL AND b.{first} IS NOT NULL AND "
            f"{self._differ()}), count(*) FILTER (WHERE b.{first} IS NULL), "
            f"count(*) FILTER (WHERE a.{first} IS NULL) FROM {self._joined(keys, 1)}"
        )

    def rows(self, keys: Sequence[str] | None) -> str:
        """The keys of those that differ, with both rows."""
        return self._differing("to_jsonb(a), to_jsonb(b)", keys)

    def values(self, fields: Sequence[str]) -> str:
        """The keys of those that differ, whether the first table has the row, and the values of fields there."""
        values = "".join(f", a.{quoted(field)}" for field in fields)
        return self._differing(f"a.{quoted(self._key[0])} IS NOT NULL{values}", None)

    def _differing(self, what: str, keys: Sequence[str] | None) -> str:
        key = ", ".join(f"coalesce(a.{quoted(each)}, b.{quoted(each)})" for each in self._key)
        return (
            f"SELECT concat_ws('/', {key}), {what} FROM {self._joined(keys, 2)} "
            f"WHERE {self._differ()} LIMIT $1"
        )

    def why(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> str:
        """The difference of two rows, in words."""
        if old is None or new is None:
            return "added" if old is None else "missing"
        return "; ".join(
            f"{name}: {shortened(old[name])} → {shortened(new[name])}"
            for name in self._common
            if old[name] != new[name]
        )

    def _differ(self) -> str:
        one, other = (", ".join(self._value(side, name) for name in self._common) for side in ("a", "b"))
        return f"ROW({one}) IS DISTINCT FROM ROW({other})"

    def _value(self, side: str, name: str) -> str:
        """A column as it is compared."""
        return f"{side}.{quoted(name)}{'::text' if name in self._as_text else ''}"

    def _joined(self, keys: Sequence[str] | None, parameter: int) -> str:
        chosen = ", ".join(map(quoted, self._key))
        where = "" if keys is None else f" WHERE concat_ws('/', {chosen}) = ANY (${parameter}::text[])"
        one, other = (f"(SELECT * FROM {table}{where})" for table in self._tables)
        on = " AND ".join(f"{self._value('a', each)} = {self._value('b', each)}" for each in self._key)
        return f"{one} AS a FULL JOIN {other} AS b ON {on}"


def table_of(build: Build, table: str) -> str:
    """The name of a build's table, as SQL."""
    return f"{quoted(build.place)}.{quoted(table)}" if build.place else quoted(table)


def quoted(name: str) -> str:
    """An identifier."""
    return '"' + name.replace('"', '""') + '"'


def shortened(value: Any) -> str:
    """A value of a row in at most 40 characters."""
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
