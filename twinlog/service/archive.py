"""``twinlog archive``: moves old events of a log into files (docs/operations.md, The archive)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from twinlog.log.archive import filesystem
from twinlog.log.log_file import zstd
from twinlog.model.errors import ConfigurationError
from twinlog.postgres.archiving import RANGE, Rule, archive
from twinlog.postgres.identity import identity
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.repair import opened
from twinlog.service.export import only_database, require

_CONNECTIONS = 3
"""One holds the lock."""


class ArchiveOptions(NamedTuple):
    """What is asked for."""

    log: str
    url: str
    """Where the files go: a URL as fsspec takes it, such as file:///var/lib/archive or s3://bucket/archive."""
    before: datetime
    postgres_url: str
    database: str = ""
    ends: tuple[str, ...] = ()
    """Types of streams that end."""
    range: int = RANGE


class ArchiveDone(NamedTuple):
    """What was done."""

    log: str
    database: str
    ranges: int
    events: int
    removed: int
    bytes: int
    upto: int
    seconds: float


async def archive_log(options: ArchiveOptions, say: Callable[[str], None]) -> ArchiveDone:
    """Archives what is old enough. Raises ConfigurationError, FailedPrecondition and Unavailable."""
    zstd()
    filesystem(options.url)
    began = time.monotonic()
    database = options.database or await only_database(options.postgres_url, options.log)
    await require(options.postgres_url, database)
    async with opened(options.postgres_url, database) as pool:
        own = await identity(pool)
        if own is None:
            raise ConfigurationError(
                f"No service has started on database {database} yet: nothing is to be archived"
            )
        rule = Rule(options.before, options.ends, options.range)
        made = await archive(PostgresLog(pool, options.log), own, options.url, rule, say)
    return ArchiveDone(options.log, database, *made, time.monotonic() - began)
