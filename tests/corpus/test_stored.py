"""Rows of Postgres and messages of NATS as each release wrote them, headers and all, are read by the code of today."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.corpus.test_corpus import KEPT, RELEASES, kept
from twinlog import Metadata, Recorded
from twinlog.log.wire import from_wire
from twinlog.postgres.log import open_log
from twinlog.postgres.urls import database_url
from twinlog.testing.internals import JetStreamTwin, NatsClient, to_wire

HERE = Path(__file__).parent
STORED = [
    (release, log)
    for release in RELEASES
    for log in ("customers", "orders", "sagas")
    if (HERE / release / "stored.json").exists()
]


def stored(release: str, log: str) -> list[dict[str, Any]]:
    """What its servers hold of each event of a log."""
    lines = (HERE / release / "stored.json").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["log"] == log]


def event_in(line: dict[str, Any]) -> Recorded:
    return from_wire(line["subject"], base64.b64decode(line["message"]))


def test_every_type_of_each_release_is_there_with_all_metadata() -> None:
    assert {release for release, _ in STORED} == {*RELEASES}
    for release, log in STORED:
        events = [event_in(line) for line in stored(release, log)]
        assert {event.type for event in events} == {event.type for event, _ in kept(release, log)}
        for at, event in enumerate(events, 1):
            trace = event.metadata.traceparent
            assert event.metadata == Metadata(f"correlation-{at}", f"other/{at}", trace, "a release")
            assert len(trace) == 55 and event.stream.id.endswith(f" {at} ö")
    assert len(KEPT) == len(STORED)


@pytest.mark.parametrize(("release", "log"), STORED)
async def test_rows_and_messages_are_read(
    postgres_url: str, database: str, nats: NatsClient, stream: str, release: str, log: str
) -> None:
    lines = stored(release, log)
    expected = [event_in(line)._replace(log=stream) for line in lines]
    async with open_log(postgres_url, database, stream) as opened:
        await _insert(database_url(postgres_url, database), [line["row"] for line in lines])
        assert await opened.read(0, 100) == expected
    twin = JetStreamTwin(nats, stream)
    await twin.create(1)
    for line in lines:
        subject = line["subject"].replace(log, stream, 1)
        await nats.publish(subject, base64.b64decode(line["message"]), headers=line["headers"])
    await nats.flush()
    async with twin.deliver(0) as delivery:
        found: list[Recorded] = []
        while len(found) < len(lines):
            found += await delivery.next(100)
    assert found == expected
    assert [to_wire(event) for event in found] == [base64.b64decode(line["message"]) for line in lines]


async def _insert(url: str, rows: Sequence[dict[str, Any]]) -> None:
    """Rows as they are, the JSON in its very characters."""
    connection = await asyncpg.connect(url)
    try:
        for row in rows:
            seconds, _, micros = row["recorded_at"].partition(".")
            at = datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros))
            await connection.execute(
                "INSERT INTO events VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9, $10, $11)",
                *(row[name] for name in ("position", "stream_type", "stream_id", "version")),
                UUID(row["event_id"]),
                row["type"],
                bytes.fromhex(row["payload"]),
                *(row[name] for name in ("metadata", "partition_key", "tag")),
                at,
            )
        await connection.execute("UPDATE log_head SET position = $1", rows[-1]["position"])
    finally:
        await connection.close()
