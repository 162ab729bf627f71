"""The indexes of a log's tables: whether they are all there, and whole.

A ``CREATE INDEX CONCURRENTLY`` or ``REINDEX`` that failed leaves one that no statement uses, and somebody may have
dropped one: statements then take long, fail, or store twice what has to be there once.
"""

from __future__ import annotations

from typing import NamedTuple

from twinlog.postgres.archive import Fetch
from twinlog.postgres.named_queries import QUERIES


class Index(NamedTuple):
    """An index as the migrations make it."""

    name: str
    unique: bool
    table: str
    on: str
    """What is behind the table's name in its statement."""


INDEXES = (
    Index("archived_ranges_pkey", True, "archived_ranges", "(first)"),
    Index("archived_streams_pkey", True, "archived_streams", "(stream_id, stream_type, version)"),
    Index("causal_marks_pkey", True, "causal_marks", "(position)"),
    Index("chain_pkey", True, "chain", "(number)"),
    Index("checkpoints_pkey", True, "checkpoints", "(consumer)"),
    Index("declarations_pkey", True, "declarations", "(kind, name)"),
    Index("erased_subjects_pkey", True, "erased_subjects", "(subject)"),
    Index("events_pkey", True, "events", "(position)"),
    Index("events_stream_id_stream_type_version_key", True, "events", "(stream_id, stream_type, version)"),
    Index("imported_checkpoints_pkey", True, "imported_checkpoints", "(consumer)"),
    Index("kept_rows_pkey", True, "kept_rows", "(stream, view, log, version)"),
    Index("kept_snapshots_pkey", True, "kept_snapshots", "(stream_id, stream_type, version)"),
    Index("leases_pkey", True, "leases", "(name)"),
    Index("log_head_pkey", True, "log_head", "(single)"),
    Index("log_identity_pkey", True, "log_identity", "(single)"),
    Index("log_imports_pkey", True, "log_imports", "(single)"),
    Index("page_token_secret_pkey", True, "page_token_secret", "(single)"),
    Index("requests_pkey", True, "requests", "(request_id)"),
    Index("requests_recorded_at", False, "requests", "(recorded_at)"),
    Index("saga_instances_about", False, "saga_instances", "(subject, started_position)"),
    Index("saga_instances_newest", False, "saga_instances", "(status, started_position)"),
    Index("saga_instances_pkey", True, "saga_instances", "(stream)"),
    Index("saga_tables_pkey", True, "saga_tables", "(saga, version)"),
    Index("schema_functions_pkey", True, "schema_functions", "(package, name)"),
    Index("schema_migrations_pkey", True, "schema_migrations", "(package, version)"),
    Index("snapshots_pkey", True, "snapshots", "(stream_id, stream_type)"),
    Index("timers_due", False, "timers", "(due)"),
    Index("timers_pkey", True, "timers", "(stream_id, stream_type)"),
    Index("trimmed_stream_pkey", True, "trimmed_stream", "(single)"),
    Index("unlinked_pkey", True, "unlinked", "(first_position)"),
    Index("view_builds_live", True, "view_builds", "(view) WHERE live"),
    Index("view_builds_pkey", True, "view_builds", "(view, build)"),
    Index("view_changes_pkey", True, "view_changes", "(consumer, view, position, part)"),
    Index("view_crossings_pkey", True, "view_crossings", "(view, build)"),
)


class Astray(NamedTuple):
    """An index that is not as it should be."""

    name: str
    why: str
    statement: str
    """What makes it whole again."""


async def astray(fetch: Fetch) -> list[Astray]:
    """The indexes that are gone, of the log's own, and those that are not whole, of any table beside them."""
    made = {each.name: each for each in INDEXES}
    found = []
    for name, gone in await fetch(QUERIES["indexes_astray"], [*made], [each.table for each in INDEXES]):
        if gone:
            index = made[name]
            unique = "UNIQUE " if index.unique else ""
            statement = f"CREATE {unique}INDEX {name} ON {index.table} {index.on}"
            found.append(Astray(name, f"index {name} of table {index.table} is gone", statement))
        else:
            why = f"index {name} is not whole, as where making it has failed, and statements do not use it"
            found.append(Astray(name, why, f"REINDEX INDEX {name}"))
    return found
