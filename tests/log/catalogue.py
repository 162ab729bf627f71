"""What there is in a database, for the test that the schema equals its migrations.

After a change of the migrations: ``python -m tests.log.catalogue > tests/log/catalogue.json``.
"""

from __future__ import annotations

import asyncio
import json
from typing import TypeAlias

import asyncpg

from tests import servers
from twinlog.testing.internals import Connection, open_log

Catalogue: TypeAlias = dict[str, dict[str, str]]
"""What things look like, by kind and name."""

_QUERIES = {
    "columns": """
        SELECT table_name || '.' || column_name AS name,
               concat_ws(' ', data_type, CASE is_nullable WHEN 'NO' THEN 'not null' END,
                         'default ' || column_default) AS what
          FROM information_schema.columns WHERE table_schema = 'public'
        """,
    "constraints": """
        SELECT conrelid::regclass || '.' || conname AS name, pg_get_constraintdef(oid) AS what
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
        """,
    "indexes": "SELECT indexname AS name, indexdef AS what FROM pg_indexes WHERE schemaname = 'public'",
    "triggers": """
        SELECT tgrelid::regclass || '.' || tgname AS name, pg_get_triggerdef(oid) AS what
          FROM pg_trigger WHERE NOT tgisinternal
        """,
    "functions": """
        SELECT proname AS name, pg_get_function_arguments(oid) AS what
          FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        """,
}


async def catalogue(connection: Connection) -> Catalogue:
    """The columns, constraints, indexes, triggers and functions of a database."""
    return {
        kind: {row["name"]: row["what"] for row in await connection.fetch(f"{query} ORDER BY name")}
        for kind, query in _QUERIES.items()
    }


async def _main() -> None:
    async with servers.postgres_server() as server, open_log(server.url, "fresh", "fresh"):
        connection = await asyncpg.connect(f"{server.url}/fresh")
        print(json.dumps(await catalogue(connection), indent=1))
        await connection.close()


if __name__ == "__main__":
    asyncio.run(_main())
