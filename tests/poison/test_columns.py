"""Rows of a log with anything in their columns, as another program may write it: they are events like others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from tests import servers
from tests.kernel.batches import grow
from tests.poison.kinds import fails
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog import Metadata, Recorded
from twinlog.jetstream import connection as jetstream
from twinlog.log.ports import ReadRequest
from twinlog.postgres.named_queries import QUERIES
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import JetStreamTwin, PostgresLog, Relay, Twin, open_log

_APPEND = """
    WITH head AS (UPDATE log_head SET position = position + 1 RETURNING position)
    INSERT INTO events (position, stream_type, stream_id, version, event_id, type, payload, metadata, partition_key,
                        tag, recorded_at, extra)
    SELECT head.position, stream_type, 'p', head.position, gen_random_uuid(), {type}, payload, {metadata},
           {partition_key}, {tag}, {recorded_at}, {extra} FROM head, events WHERE events.position = 1"""
_SOUND = {name: name for name in ("type", "metadata", "partition_key", "tag", "recorded_at", "extra")}
POISON: Mapping[str, list[str]] = {
    "metadata": [
        "'null'", "'5'", "'[]'", "'[{}]'", "'\"text\"'", "'{\"actor\": 5}'", "'{\"actor\": null}'",
        "'{\"correlation_id\": {\"a\": [1]}}'", "'{\"traceparent\": true, \"newer\": [1]}'", "'{\"extra\": [1]}'",
        "(repeat('[', 999) || repeat(']', 999))", "('{\"actor\": ' || repeat('9', 9999) || '}')",
    ],
    "extra": ["'null'", "'5'", "'[]'", "'\"text\"'", "'{\"tenant\": 5}'", "'{\"tenant\": {\"a\": null}}'"],
    "tag": [
        "''", "' '", "'a b'", "'a.b.c'", "'.'", "'>'", "'*'", "E'a\\tb'", "E'a\\r\\nPUB elsewhere 2\\r\\nhi'",
        "E'\\u00a0\\u2028'", "repeat('x', 5000)",
    ],
    "type": ["''", "'.'", "'shop.'", "'..'", "'shop.Order Annotated'", "E'shop.A\\r\\n'", "repeat('x', 5000)"],
    "partition_key": ["''", "E'\\r\\n'", "repeat('x', 100000)"],
    "recorded_at": ["'infinity'", "'-infinity'", "'200000-01-01'", "'4000-01-01 BC'", "'9999-12-31 23:59:59.999999'"],
}  # fmt: skip


@pytest.fixture
async def log(postgres_url: str, database: str) -> AsyncIterator[PostgresLog]:
    async with open_log(postgres_url, database, "rows") as log:
        yield log


async def poison(log: PostgresLog) -> int:
    """Appends a row for each kind of poison; gives how many."""
    rows = [{**_SOUND, column: value} for column, values in POISON.items() for value in values]
    for row in rows:
        casts = {"metadata": "::jsonb", "extra": "::jsonb", "recorded_at": "::timestamptz"}
        await log.pool.execute(
            _APPEND.format(**{name: value + casts.get(name, "") for name, value in row.items()})
        )
    return len(rows)


async def delivered(twin: Twin, count: int, types: list[str]) -> list[Recorded]:
    """So many events of a stream, as a consumer gets them."""
    events: list[Recorded] = []
    async with asyncio.timeout(60), twin.deliver(0, types) as delivery:
        while len(events) < count:
            events += await delivery.next(100)
    return events


async def test_rows_of_any_content_are_copied_and_delivered(log: PostgresLog, nats_url: str) -> None:
    """Neither the connection nor the process ends, and events of neighbors come as ever."""
    await grow(log, 2)
    rows = await poison(log)
    await grow(log, 3, "b")
    client = await jetstream.connect(nats_url, "tests")
    async with servers.stream(client) as name:
        log.name = name
        twin, relay = JetStreamTwin(client, name), Relay(log, JetStreamTwin(client, name))
        async with running(relay):
            await mirrored(log, twin)
            assert relay.problem is None
        head = await log.head()
        assert head == rows + 5
        events = await log.read(0, head)
        assert await delivered(twin, head, []) == events
        short = events[-1].type.rpartition(".")[2]
        wanted = [event.position for event in events if event.type == events[-1].type]
        assert [event.position for event in await delivered(twin, len(wanted), [short])] == wanted
        [stream] = await log.load([ReadRequest(events[2].stream)])
        assert list(stream.events) == events[2:-3]
    await jetstream.close(client)


async def test_what_is_no_text_is_read_as_the_json_that_it_is(log: PostgresLog) -> None:
    await grow(log, 1)
    await poison(log)
    told = [event.metadata for event in await log.read(1, 18)]
    assert told[:6] == [Metadata(actor=text) for text in ("null", "5", "[]", "[{}]", "text", "5")]
    assert told[7] == Metadata(correlation_id='{"a":[1]}')
    assert told[8] == Metadata(traceparent="true"), "what a newer program adds is left out"
    assert [metadata.extra for metadata in told[12:14]] == [{}, {"extra": "5"}]
    assert [metadata.actor[:3] for metadata in told[10:12]] == ["[[[", '{"a'], "what no parser reads"
    assert told[16].extra == {"tenant": "5"}


async def test_timers_of_any_time_are_read_in_order(log: PostgresLog) -> None:
    times = [
        "-infinity",
        "4000-01-01 BC",
        "0001-01-01",
        "2020-01-01",
        "9999-12-31 23:59:59.999999",
        "200000-01-01",
        "infinity",
    ]
    for number, time in enumerate(times):
        await log.pool.execute(f"INSERT INTO timers VALUES ('alarm', '{number}', 1, '{time}')")
    now = datetime.now(UTC)
    due = await log.due(now, 10)
    assert [timer.stream.id for timer in due] == ["0", "1", "2", "3"]
    assert [timer.stream.id for timer in await log.due(now, 10, due[2])] == ["3"]


async def test_a_page_of_very_many_that_wait_reads_no_others(log: PostgresLog) -> None:
    async with log.pool.acquire() as connection:
        await connection.execute(
            "INSERT INTO timers SELECT 'gone', n::text, 1, '2020-01-01'::timestamptz + n * '1 ms'::interval "
            "FROM generate_series(1, 5000) n"
        )
        await connection.execute("ANALYZE timers")
        now = datetime.now(UTC)
        first = await log.due(now, 200)
        next = await log.due(now, 200, first[-1])
        assert [int(timer.stream.id) for timer in [*first, *next]] == [*range(1, 401)]
        for name, after in {"due": [], "due_after": [first[-1].due, *first[-1].stream]}.items():
            [row] = await connection.fetch(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES[name]}", now, 200, *after
            )
            assert rows_read(json.loads(row[0])[0]["Plan"]) <= 220, name


def rows_read(plan: dict[str, Any]) -> int:
    """How many rows the scans of a plan have looked at."""
    below = sum(map(rows_read, plan.get("Plans", [])))
    return below or int(plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0))


async def test_whatever_cannot_be_copied_shows_and_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of the copying is no reason to end the process, whose commands go on."""
    log, twin = MemoryLog("defect"), MemoryTwin("defect")
    await grow(log, 2)
    relay = Relay(log, twin)
    with monkeypatch.context() as patch:
        patch.setattr(twin, "publish", fails)
        async with running(relay):
            await until(lambda: relay.problem is not None)
            assert relay.problem is not None and "a defect" in relay.problem
            patch.undo()
            await mirrored(log, twin)
            await until(lambda: relay.problem is None)
