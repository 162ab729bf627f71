"""``twinlog archive``: moves old events of a log into files (docs/operations.md, The archive)."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from twinlog.log.archive import lasting
from twinlog.log.installation import Identity
from twinlog.log.log_file import zstd
from twinlog.model.errors import ConfigurationError
from twinlog.postgres.archiving import RANGE, Rule, archive
from twinlog.postgres.connection import fetch
from twinlog.postgres.identity import identity
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.repair import databases, followers, opened
from twinlog.service.export import database_of


class Stream(Enum):
    """What becomes of the log's stream."""

    AS_IT_IS = "as it is"
    TRIMMED = "trimmed"
    """It loses what is archived and handled by every consumer."""
    WHOLE = "whole"
    """It gets every event back."""


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
    stream: Stream = Stream.AS_IT_IS


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
    url = lasting(options.url)
    began = time.monotonic()
    database = await database_of(options.log, options.postgres_url, options.database)
    async with opened(options.postgres_url, database) as pool:
        own = await identity(pool, options.log)
        if own is None:
            raise ConfigurationError(
                f"No service has started on database {database} yet: nothing is to be archived"
            )
        rule = Rule(options.before, options.ends, options.range)
        log = PostgresLog(pool, options.log)
        made = await archive(log, own, url, rule, say)
        if options.stream is Stream.TRIMMED:
            await _trim(options, log, own, say)
        elif options.stream is Stream.WHOLE:
            await fetch(pool, QUERIES["trim"], 0)
            say(f"The relay makes stream {options.log} whole again, from the log and its archive.")
    return ArchiveDone(options.log, database, *made, time.monotonic() - began)


async def _trim(options: ArchiveOptions, log: PostgresLog, own: Identity, say: Callable[[str], None]) -> None:
    """Lets the stream be empty up to the archive's end, or up to the consumer that is furthest behind.

    What each has handled last stays: a consumer that begins again compares it with what it has handled.
    """
    upto, before = await log.archived_upto(), await log.trimmed()
    for database in await databases(options.postgres_url):
        async with opened(options.postgres_url, database) as pool:
            owner = await identity(pool)
            if owner and owner.installation != own.installation:
                continue
            behind = [*await followers(pool, log.name)]
            if owner == own:
                behind += await followers(pool, "saga_instances")
            for one in behind:
                if one.position < upto:
                    say(
                        f"Consumer {one.consumer} in {database} has handled events up to {one.position:,} only."
                    )
                upto = min(upto, max(one.position - 1, 0))
    if upto <= before:
        say(f"Stream {log.name} stays as it is, trimmed up to {before:,}.")
        return
    await fetch(log.pool, QUERIES["trim"], upto)
    say(f"The relay trims stream {log.name} up to {upto:,}.")
