"""Whether a log's tables still refuse changes: an operator may have switched that off, and not on again."""

from __future__ import annotations

from twinlog.audit.report import Findings
from twinlog.postgres.connection import Pool, fetch
from twinlog.postgres.named_queries import QUERIES
from twinlog.postgres.urls import psql

GUARDED = "logs take inserts only"


async def judge_guards(pool: Pool, log: str, database: str, findings: Findings) -> None:
    """Names each table of a log in which events could be changed without a word. Raises Unavailable."""
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
