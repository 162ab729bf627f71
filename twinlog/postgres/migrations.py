"""Versioned SQL migrations, applied in order under a lock when a service starts."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from twinlog.model.errors import ConfigurationError

OLDEST_POSTGRES = 140000
_LOCK = 7_714_266_100
_NAME = re.compile(r"(\d{3})_\w+\.sql")

_STORED_AS = {"twinlog.postgres.sql": "twinlog.sql"}
"""Packages that have moved: the name under which databases know them."""

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    package    text NOT NULL,
    version    integer NOT NULL,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (package, version)
)
"""


class Migration(NamedTuple):
    """One file of a package's ``migrations`` folder."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """What tells whether it was changed after it was applied."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


class ChangedMigration(ConfigurationError):
    """Migration {name} was changed after it was applied; restore it and put the change into a new one."""

    reason = "CHANGED_MIGRATION"


class NewerSchema(ConfigurationError):
    """The database has schema version {found}, this program knows {known}; deploy the newer program."""

    reason = "NEWER_SCHEMA"


def migrations(package: str) -> list[Migration]:
    """The migrations of a package, in order."""
    files = (resources.files(package) / "migrations").iterdir()
    found = [(match, file) for file in files if (match := _NAME.fullmatch(file.name))]
    return sorted(Migration(int(match[1]), file.name, file.read_text()) for match, file in found)


async def migrate(connection: asyncpg.Connection, package: str) -> None:
    """Brings the database's schema up to date, all of it or nothing; replicas wait for each other.

    Raises ChangedMigration, NewerSchema, and ConfigurationError where the user may not create tables.
    """
    try:
        await _migrate(connection, package)
    except asyncpg.InsufficientPrivilegeError as error:
        raise ConfigurationError(
            f"POSTGRES_URL: this user may not set up the tables ({error}); use the owner of the database"
        ) from error


async def _migrate(connection: asyncpg.Connection, package: str) -> None:
    known = migrations(package)
    package = _STORED_AS.get(package, package)
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_TABLE)
        rows = await connection.fetch(
            "SELECT version, checksum FROM schema_migrations WHERE package = $1", package
        )
        applied = {row["version"]: row["checksum"] for row in rows}
        if applied and max(applied) > known[-1].version:
            raise NewerSchema(found=max(applied), known=known[-1].version)
        for migration in known:
            if migration.version not in applied:
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (package, version, name, checksum) VALUES ($1, $2, $3, $4)",
                    package,
                    migration.version,
                    migration.name,
                    migration.checksum,
                )
            elif applied[migration.version] != migration.checksum:
                raise ChangedMigration(name=migration.name)


def database_url(server_url: str, database: str) -> str:
    """The URL of a database on a server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{quote(database)}"))


async def ensure_database(server_url: str, database: str) -> str:
    """Creates the database where it is missing, and gives its URL.

    Raises ConfigurationError, in one line that says what is needed, where Postgres refuses; lets the errors of
    a server that is not there yet through.
    """
    url = database_url(server_url, database)
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except asyncpg.InvalidCatalogNameError:
        await _create(server_url, database)
        connection = await asyncpg.connect(url, timeout=10)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError) as error:
        raise ConfigurationError(f"POSTGRES_URL: Postgres refuses the login: {error}") from error
    try:
        version = await connection.fetchval("SHOW server_version_num")
        if int(version) < OLDEST_POSTGRES:
            raise ConfigurationError(f"POSTGRES_URL: Postgres 14 or newer is needed, this one is {version}")
    finally:
        await connection.close()
    return url


async def _create(server_url: str, database: str) -> None:
    path = urlsplit(server_url).path
    try:
        connection = await asyncpg.connect(
            server_url if len(path) > 1 else database_url(server_url, "postgres")
        )
        try:
            await connection.execute(f'CREATE DATABASE "{database}"')
        except (asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
            pass  # another process was faster
        finally:
            await connection.close()
    except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise ConfigurationError(
            f"POSTGRES_URL: there is no database {database} and this user may not create it ({error}); "
            f"create it, or grant CREATEDB"
        ) from error
