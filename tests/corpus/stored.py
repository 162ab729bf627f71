"""Runs in the tree of a release, with its code: an event of each type as its servers hold it, as lines of JSON.

``python -m tests.corpus.stored FOLDER`` reads what :mod:`tests.corpus.dump` wrote there, and has the release store it
anew with every field of metadata set: a row of Postgres, and a message of NATS with its subject and headers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.servers import nats_server, postgres_server
from twinlog import Metadata, Recorded, StreamId
from twinlog.jetstream.connection import connect
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.ports import Batch
from twinlog.log.wire import from_wire
from twinlog.model.event import NewEvent
from twinlog.postgres.log import open_log

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_ROWS = """
SELECT position, stream_type, stream_id, version, event_id::text AS event_id, type, encode(payload, 'hex') AS payload,
       metadata::text AS metadata, partition_key, tag, extract(epoch FROM recorded_at)::text AS recorded_at
  FROM events ORDER BY position
"""


def _of_each_type(file: Path) -> list[Recorded]:
    found: dict[str, Recorded] = {}
    for line in map(json.loads, file.read_text().splitlines()):
        event = from_wire(line["subject"], base64.b64decode(line["message"]))
        found.setdefault(event.type, event)
    return list(found.values())


def _new(event: Recorded, number: int) -> NewEvent:
    metadata = Metadata(f"correlation-{number}", f"other/{number}", TRACE, "a release")
    stream = StreamId(event.stream.type, f"{event.stream.id} {number} ö")
    return NewEvent(
        stream, 1, event.event_id, event.type, event.payload, metadata, event.partition_key, event.routing_key
    )


async def _stored(postgres_url: str, client: Any, file: Path) -> list[dict[str, Any]]:
    name, events = file.stem, [_new(event, at) for at, event in enumerate(_of_each_type(file), 1)]
    async with open_log(postgres_url, f"stored_{name}", name) as log:
        at = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC) + timedelta(microseconds=len(events))
        await log.append(Batch(at, {event.stream: 0 for event in events}, events))
        twin = JetStreamTwin(client, name)
        await twin.create(1)
        await twin.publish(await log.read(0, 1_000))
        found = []
        for row in await log.pool.fetch(_ROWS):
            message = await client.jsm().get_msg(name, row["position"])
            found.append(
                {
                    "log": name,
                    "row": dict(row),
                    "subject": message.subject,
                    "headers": dict(message.headers or {}),
                    "message": base64.b64encode(message.data).decode(),
                }
            )
        return found


async def main(files: Sequence[Path]) -> str:
    """A line for each event."""
    lines: list[str] = []
    async with postgres_server() as postgres, nats_server() as nats:
        client = await connect(nats.url, "corpus")
        for file in files:
            lines += [json.dumps(each, sort_keys=True) for each in await _stored(postgres.url, client, file)]
        await client.close()
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "stored.json").write_text(asyncio.run(main(sorted(folder.glob("*.jsonl")))))
