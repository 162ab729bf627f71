"""Makes a stream unreadable: appends an event that the running processes do not know."""

from __future__ import annotations

import asyncpg

from proof.chaos.annotated import TYPE

_APPEND = """
    WITH head AS (UPDATE log_head SET position = position + 1 RETURNING position),
         last AS (SELECT * FROM events WHERE stream_type = $1 AND stream_id = $2 ORDER BY version DESC LIMIT 1)
    INSERT INTO events (position, stream_type, stream_id, version, event_id, type, payload, metadata, partition_key,
                        tag, recorded_at)
    SELECT head.position, stream_type, stream_id, version + 1, gen_random_uuid(), $3, $4, metadata, partition_key,
           coalesce($5, tag), now()
      FROM head, last RETURNING version"""


async def append(
    connection: asyncpg.Connection,
    kind: str,
    stream: str,
    type: str = TYPE,
    payload: bytes = b"",
    tag: str | None = None,
) -> int:
    """Appends an event to a stream, as a newer replica would; gives its version."""
    async with connection.transaction():
        # A statement of its own: the next one has to see what others appended while this one waited.
        await connection.execute("SELECT FROM log_head FOR UPDATE")
        version: int = await connection.fetchval(_APPEND, kind, stream, type, payload, tag)
    return version
