"""Whether a log's tables still refuse changes, and have their indexes: somebody may have changed that for a while."""

from __future__ import annotations

from functools import partial

from twinlog.audit.report import Findings
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.indexes import astray
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.urls import psql

GUARDED = "logs take inserts only"
INDEXED = "tables have their indexes"


async def judge_guards(pool: Pool, log: str, database: str, findings: Findings) -> None:
    """Names each table of a log in which events could be changed without a word, and each index that is gone or not
    whole. Raises Unavailable."""
    for (table,) in await fetch(pool, QUERIES["unguarded"]):
        trigger = (
            f"CREATE OR REPLACE TRIGGER insert_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
        findings.add(
            GUARDED,
            f"{log}: trigger insert_only of table {table} in {database} is switched off, or gone",
            ids=[log, table],
            remedy=f'{psql(database)} -c "{trigger}"    # and see `twinlog audit --chain`',
        )
    for index in await astray(partial(fetch, pool)):
        findings.add(
            INDEXED,
            f"{log}: {index.why}, in {database}",
            ids=[log, index.name],
            remedy=f'{psql(database)} -c "{index.statement}"    # it locks the table for as long as it takes',
        )
