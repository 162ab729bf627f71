"""What has to hold of a program and its log, before the service is wired.

:meth:`twinlog.service.service.Service.conditions` has what follows.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence

import asyncpg

from twinlog.consume.kept_views import KeptViews, Tables
from twinlog.log.declarations import KeptConsumers, check_declarations
from twinlog.log.heads import Sign, unsigned
from twinlog.log.installation import Identity, named
from twinlog.log.keys import require_cipher
from twinlog.log.saga_tables import check_saga_tables
from twinlog.model.personal import personal_types
from twinlog.observe.tracing import wanted
from twinlog.postgres.connection import Pool
from twinlog.postgres.database import migrate_if
from twinlog.postgres.declarations import PostgresDeclarations, PostgresSagaTables, columns_in
from twinlog.postgres.identity import identify, whose
from twinlog.service.conditions import Condition
from twinlog.service.mistakes import refuse
from twinlog.service.settings import Settings
from twinlog.service.spec import ServiceSpec
from twinlog.service.spec_mistakes import in_database_name, in_spec


def of_program(spec: ServiceSpec, settings: Settings) -> Sequence[Condition]:
    """Those of a program by itself; no server is asked."""
    return [
        Condition("declaration", lambda: refuse(list(in_spec(spec)), spec.name)),
        Condition(
            "name of the database",
            lambda: refuse(list(in_database_name(database_in(spec, settings))), spec.name),
        ),
        Condition("traces", lambda: _without_result(wanted(os.environ))),
        Condition("encryption of personal fields", lambda: require_cipher(personal_types())),
        Condition("key of the chain", lambda: _without_result(signing(settings.chain_key_file))),
    ]


def database_in(spec: ServiceSpec, settings: Settings) -> str:
    """The database of a service's log, as its server knows it."""
    return named(settings.twinlog_namespace, settings.postgres_database or spec.database)


def signing(key_file: str) -> Sign:
    """Loaded only where it is asked for. Raises ConfigurationError."""
    if not key_file:
        return unsigned
    from twinlog.log.signing import signer

    return signer(key_file)


def _without_result(_result: object) -> None:
    """A check that gives something else besides."""


class Start:
    """The start of a service: its log is open."""

    def __init__(
        self, spec: ServiceSpec, settings: Settings, pool: Pool, *, reads_only: bool = False
    ) -> None:
        """``reads_only``: nothing is going to be kept, nor does the log get its identity."""
        self._spec, self._settings, self._pool = spec, settings, pool
        self._reads_only = reads_only
        self.identity: Identity | None = None
        """Whose the log is, once that is checked; None: nobody's yet."""
        self.consumers: KeptConsumers | None = None
        self.views: KeptViews | None = None
        """Those that programs of the log had, once the declarations are checked."""
        self._keeps: dict[str, Callable[[], Awaitable[None]]] = {}
        """What keeps what was checked."""

    @property
    def conditions(self) -> Sequence[Condition]:
        """Those of a program and its log."""
        return [
            Condition("installation and log", self._whose),
            Condition("tables of sagas", self._saga_tables),
            Condition("declarations", self._declarations),
        ]

    async def migrate(self) -> None:
        """Applies the migrations of the program, unless its views then are not what they were: it is all taken back
        where they are refused. Raises ConfigurationError and Unavailable."""

        async def agrees(connection: asyncpg.Connection) -> None:
            self.check_columns(await columns_in(connection))

        spec, settings = self._spec, self._settings
        await migrate_if(settings.postgres_url, database_in(spec, settings), spec.migrations, agrees)

    def check_columns(self, columns: Mapping[str, Mapping[str, str]]) -> None:
        """Compares what the migrations make of the tables of its views, once these are checked.

        ``columns``: by table, the types of its columns. Raises ConfigurationError.
        """
        if self.views:
            self.views.check_columns(columns)

    async def keep(self) -> None:
        """Keeps what was checked: the next start is compared with it. Raises ConfigurationError and Unavailable."""
        for each in self._keeps.values():
            await each()

    async def _whose(self) -> None:
        settings = self._settings
        place = (self._pool, settings.twinlog_installation, settings.twinlog_namespace)
        # What the log is called was looked at before anything was made, and is kept with the rest.
        self.identity = await (whose(*place) if self._reads_only else identify(*place))

        async def name() -> None:
            await identify(*place, self._spec.log)

        self._keeps["name"] = name

    async def _saga_tables(self) -> None:
        tables = PostgresSagaTables(self._pool)
        self._keeps["sagas"] = await check_saga_tables(tables, self._spec.aggregates, self._spec.schema)

    async def _declarations(self) -> None:
        spec, declarations = self._spec, PostgresDeclarations(self._pool)
        kept = await declarations.kept()
        keep = await check_declarations(declarations, kept, spec.name, spec.aggregates, spec.schema)
        self._keeps["declarations"] = keep
        checkpoints = await declarations.checkpoints()
        tables = Tables(checkpoints, await declarations.builds(), await declarations.columns())
        self.consumers = KeptConsumers(declarations, spec.name, kept, checkpoints)
        self.views = KeptViews(declarations, spec.name, kept, tables)
