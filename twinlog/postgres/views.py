"""Views in Postgres."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from datetime import timedelta
from functools import partial
from importlib import resources
from typing import Any, Protocol, Self, TypeVar

import asyncpg

from twinlog.log.ports import Batch, CheckpointAdvance, Conflict, Log
from twinlog.log.system import seconds_passed
from twinlog.log.view_builds import SURE_SECONDS, LiveBuilds
from twinlog.log.view_store import Build, ViewMoment
from twinlog.model.errors import ConfigurationError, RowsRefused, Unavailable
from twinlog.model.forms import Form, Forms, one, refuse_other
from twinlog.model.row_changes import NO_ROWS, NotedViews
from twinlog.model.view import AnyView, Changes
from twinlog.postgres.codecs import Connection
from twinlog.postgres.connection import Pool, fetch, go_to, in_task, on_connection
from twinlog.postgres.log import PostgresLog, append
from twinlog.postgres.lookups import Lookups
from twinlog.postgres.named_queries import load_queries, named
from twinlog.postgres.view_builds import ViewBuilds, quoted
from twinlog.postgres.view_moment import PostgresMoment
from twinlog.postgres.view_writer import ViewWriter

T = TypeVar("T")


_TABLE = re.compile(r"[^\W\d]\w{0,49}")


class Runs(Protocol):
    """Runs work on a connection of a pool."""

    async def __call__(self, pool: Pool, work: Callable[[Connection], Awaitable[T]]) -> T: ...


def _has_queries(package: Any) -> bool:
    try:
        return isinstance(package, str) and (resources.files(package) / "queries.sql").is_file()
    except (ImportError, TypeError, ValueError):
        return False


def _are_rows(rows: Any) -> bool:
    return isinstance(rows, Mapping) and all(
        isinstance(name, str) and isinstance(row, type) and issubclass(row, tuple) and hasattr(row, "_fields")
        for name, row in rows.items()
    )


_FORMS: Forms = {
    "log": one(PostgresLog, "the log of a service in Postgres, service.log; a world has it in memory"),
    "package": Form(_has_queries, "the name of a package with a queries.sql, such as 'rooms_svc.sql'"),
    "rows": Form(
        _are_rows, "the NamedTuple of each view by the name of its table, such as {'rooms': RoomRow}"
    ),
}


class NoSuchField(ConfigurationError):
    """The rows of view {view} are to be chosen by {field}, which they have not; their fields are {fields}."""

    reason = "NO_SUCH_FIELD"


class _Undone(Exception):
    """Rolls a transaction back, because of a conflict."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__()
        self.conflict = conflict


class PostgresViews(ViewBuilds):
    """Reads and stores each view with two named queries: ``<view>_rows`` and ``<view>_upsert``.

    The first takes keys and returns the columns in the order of the row's fields, the key first; the second takes an
    array of rows of the table, and is a single INSERT. The table has its columns in the same order. A view that deletes
    rows has a third, ``<view>_delete``, which takes keys and is a single DELETE.
    """

    def __init__(self, log: Log, package: str, rows: Mapping[str, Any]) -> None:
        """``log`` is in the same database; ``package`` holds the queries; ``rows``: the NamedTuple of each view."""
        refuse_other("PostgresViews", {"log": log, "package": package, "rows": rows}, _FORMS)
        assert isinstance(log, PostgresLog)
        super().__init__(log.pool, {**load_queries("twinlog.postgres.sql"), **load_queries(package)})
        self.log = log
        self._types = rows
        self._lookups: dict[str, Lookups] = {}
        self._writer = ViewWriter(log, self._queries, package, rows)
        self.live = LiveBuilds()
        self._place: str | None = None
        """Where the builds are that it keeps; None: it reads those that are live."""

    def at(self, place: str) -> Self:
        kept = copy(self)
        kept._place, kept._lookups, kept._writer = place, {}, self._writer.at(place)
        return kept

    def begin_noting(self) -> None:
        self._writer.noting = True

    def kept(self) -> Self:
        return self.at(self._place or "")

    @property
    def place(self) -> str:
        """Where the builds are that it keeps; empty: at home."""
        return self._place or ""

    async def checkpoint(self, consumer: str) -> int:
        rows = await fetch(self.pool, self._queries["checkpoint"], consumer)
        return rows[0][0] if rows else 0

    async def checkpoints(self) -> dict[str, int]:
        """The position up to which each consumer has projected its log."""
        rows = await fetch(self.pool, self._queries["checkpoints"])
        return {row[0]: row[1] for row in rows}

    async def query(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a named query of the package. Raises Unavailable while the database is out of service."""
        return await self._read(lambda connection: connection.fetch(self.text_of(name), *arguments))

    async def rows(self, view: AnyView, keys: Sequence[str]) -> Mapping[str, Any]:
        return await self._read(lambda connection: self.read_rows(connection, view, keys))

    def row(self, view: AnyView, key: str) -> Coroutine[Any, Any, Any | None]:
        """One row, or None. Rows that are asked for at the same time share a statement.

        Raises Unavailable while the database is out of service.
        """
        lookups = self._lookups.get(view.name)
        if lookups is None:
            lookups = self._lookups[view.name] = Lookups(partial(self._looked_up, view))
        return lookups.row(key)

    def _looked_up(self, view: AnyView, keys: Sequence[str]) -> Awaitable[Mapping[str, Any]]:
        return self._read(lambda connection: self.read_rows(connection, view, keys), in_task)

    def reading(self, view: AnyView) -> tuple[str, Any] | None:
        """The query for rows of a view by their keys, and the type of the rows; None if there is no such query."""
        query, row_type = self._queries.get(f"{view.table}_rows"), self._types.get(view.table)
        return (query, row_type) if query and row_type else None

    async def _read(self, read: Callable[[Connection], Awaitable[T]], run: Runs = on_connection) -> T:
        if self._place is not None:
            return await self._on_connection(read, run)
        live = self.live
        while live.opened:
            await live.opened.wait()
        live.reads += 1
        try:
            found = await self._on_connection(read, run)
            if seconds_passed() - live.seen_at > SURE_SECONDS:
                await self._see_kept()
            return found
        finally:
            live.reads -= 1

    async def _see_kept(self) -> None:
        """What was just read is of builds that are kept. Raises Unavailable where one was dropped meanwhile: its names
        mean another table now, or one that is empty."""
        live, now = self.live, seconds_passed()
        builds = [build for build in await self.builds() if build.table in self._types]
        if gone := live.gone(builds):
            raise self._away(gone)
        live.saw(now)

    def _away(self, build: Build) -> Unavailable:
        """Why a build that is to be read cannot be."""
        if build.table in self._types:
            return Unavailable(
                f"build {build.number} of view {build.view} was dropped; another one will be read soon"
            )
        return Unavailable(
            f"view {build.view} is read in version {build.version}, which this program does not declare; "
            "deploy the one that does"
        )

    def _on_connection(
        self, work: Callable[[Connection], Awaitable[T]], run: Runs = on_connection
    ) -> Awaitable[T]:
        path = self._path()

        async def placed(connection: Connection) -> T:
            if path != getattr(connection, "path", ""):
                await go_to(connection, path)
            return await work(connection)

        return run(self.pool, placed)

    def _path(self) -> str:
        """The schemas to look in first."""
        if self._place is not None:
            return quoted(self._place) if self._place else ""
        if not self.live.elsewhere:
            return ""
        return ", ".join(quoted(build.place) for build in self.live.current.values() if build.place)

    def _placed(self, name: str) -> str:
        """A query as a separate text for each place: a session keeps the types that its first one meant."""
        path = self._path()
        return f"/* {path} */ {named(self._queries, name)}" if path else named(self._queries, name)

    def text_of(self, query: str) -> str:
        """The statement of a named query, for the builds that are read."""
        return self._placed(self._live(query))

    def _live(self, query: str) -> str:
        """The name of a query, or of its namesake for the version of a view that is read."""
        for build in self.live.current.values() if self.live.elsewhere else ():
            if build.version > 1 and f"{query}_v{build.version}" in self._queries:
                return f"{query}_v{build.version}"
        return query

    def table_read(self, view: AnyView) -> str:
        """The table of a view's version that is read; that of the given one where it is kept."""
        live = self.live.current.get(view.name) if self._place is None else None
        return live.table if live else view.table

    def mistakes(self, view: AnyView) -> Sequence[str]:
        """What its package lacks for a view."""
        if not _TABLE.fullmatch(view.table):
            return [
                f"view {view.table!r} cannot name a table and its queries; take at most 50 letters, digits and _"
            ]
        needed = [f"{view.table}_upsert", *([] if view.append_only else [f"{view.table}_rows"])]
        lacks = [
            f"view {view.table!r} has no query {query!r}; add it to the queries.sql of its package"
            for query in needed
            if query not in self._queries
        ]
        if view.table not in self._types:
            lacks.append(f"view {view.table!r} has no row type in this store; name it in `rows`")
        return lacks

    async def retyped(self, views: Sequence[AnyView]) -> RowsRefused | None:
        return await self._on_connection(lambda connection: self._writer.retyped(connection, views))

    async def update(
        self,
        wanted: Mapping[AnyView, Sequence[str]],
        change: Callable[[Changes], Changes],
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Changes | Conflict:
        async def work(connection: Connection) -> Changes | Conflict:
            try:
                async with connection.transaction():
                    # In one order everywhere, so that two updates never wait for each other.
                    for name in sorted(view.table for view in wanted):
                        await connection.execute(self._queries["lock_view"], f"{self._place or ''}{name}")
                    rows = {
                        view: await self.read_rows(connection, view, keys) for view, keys in wanted.items()
                    }
                    changes = change(rows)
                    await self._writer.store(connection, changes, advance, {**before, **rows})
                    if batch and isinstance(refused := await append(connection, batch), Conflict):
                        raise _Undone(refused)
                    return changes
            except _Undone as undone:
                return undone.conflict

        return await self._on_connection(work)

    async def read_rows(
        self, connection: Connection, view: AnyView, keys: Sequence[str]
    ) -> Mapping[str, Any]:
        """The rows of a view with these keys, on the caller's connection."""
        table = self.table_read(view)
        if table not in self._types:
            raise self._away(self.live.current[view.name])
        found = await connection.fetch(self._placed(f"{table}_rows"), keys)
        row_type = self._types[table]
        return {row[0]: row_type(*row) for row in found}

    def note(self, views: NotedViews) -> None:
        for view, fields in views.items():
            has = self._types[view.table]._fields if view.table in self._types else fields
            if missing := [each for each in fields if each not in has]:
                raise NoSuchField(view=view.name, field=repr(missing[0]), fields=", ".join(has))
        self._writer.noted |= views

    def fields_noted(self, view: AnyView) -> Sequence[str] | None:
        return self._writer.noted.get(view)

    async def forget_notes(self, older_than_seconds: float) -> None:
        for forget in ("forget_view_notes", "forget_crossings"):
            await fetch(self.pool, self._queries[forget], timedelta(seconds=older_than_seconds))

    async def at_once(self, read: Callable[[ViewMoment], Awaitable[T]]) -> T:
        live = self.live
        while live.opened:
            await live.opened.wait()
        live.reads += 1
        try:
            found = await self._frozen()._at_once(read)
            if seconds_passed() - live.seen_at > SURE_SECONDS:
                await self._see_kept()
            return found
        finally:
            live.reads -= 1

    def _frozen(self) -> Self:
        """It goes on with the builds that are read now, whatever others begin to be."""
        frozen = copy(self)
        frozen.live = LiveBuilds()
        frozen.live.read(self.live.current)
        return frozen

    async def _at_once(self, read: Callable[[ViewMoment], Awaitable[T]]) -> T:
        async def work(connection: Connection) -> T:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await read(PostgresMoment(connection, self._queries, self))

        return await self._on_connection(work)

    async def commit(
        self,
        changes: Changes,
        advance: CheckpointAdvance,
        batch: Batch | None = None,
        *,
        before: Changes = NO_ROWS,
    ) -> Conflict | None:
        async def work(connection: Connection) -> Conflict | None:
            if batch is None:
                await self._writer.store(connection, changes, advance, before)
                return None
            try:
                async with connection.transaction():
                    await self._writer.store(connection, changes, advance, before)
                    # Last, because it locks out every other append until the commit.
                    if isinstance(refused := await append(connection, batch), Conflict):
                        raise _Undone(refused)
            except _Undone as undone:
                return undone.conflict
            return None

        return await self._on_connection(work)
