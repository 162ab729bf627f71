"""Positions under fire: 64 writers in two processes, aborted in every way, and readers that follow them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from tests import preloaded
from twinlog import Log, Recorded, StreamId
from twinlog.testing.internals import PostgresLog

PROCESSES, TASKS, ROUNDS = 2, 32, 8


async def test_positions_are_gapless_and_appear_in_order(
    postgres_url: str, database: str, postgres_log: PostgresLog
) -> None:
    ended = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(tail(postgres_log, limit, ended)) for limit in (3, 1000)]
        reports = await asyncio.gather(*(work(postgres_url, database, seed) for seed in range(PROCESSES)))
        ended.set()

    events = await postgres_log.read(0, 1_000_000)
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    assert await postgres_log.head() == len(events)
    for reader in readers:
        assert reader.result() == events
    assert_versions_are_contiguous(events)
    assert_what_was_acknowledged_is_there(events, reports)
    did = sum((Counter(report["did"]) for report in reports), Counter())
    assert min(did[each] for each in ("roll_back", "lose_connection", "give_up", "conflicts")) > 50, did
    assert did["committed"] > 100, did


async def work(server: str, database: str, seed: int) -> dict[str, Any]:
    """The report of a process of writers."""
    arguments = map(str, (server, database, seed, TASKS, ROUNDS))
    ran = await preloaded.run("tests.log.position_worker", *arguments)
    assert ran.code == 0, ran.err
    report: dict[str, Any] = json.loads(ran.out)
    return report


async def tail(log: Log, limit: int, ended: asyncio.Event) -> Sequence[Recorded]:
    """Everything that a reader by ``position >`` sees, as long as the writers are at work and to the end."""
    seen: list[Recorded] = []
    while True:
        last = ended.is_set()
        events = await log.read(seen[-1].position if seen else 0, limit)
        seen += events
        if last and not events:
            return seen
        if not events:  # as while the processes start
            await asyncio.sleep(0.01)


def assert_versions_are_contiguous(events: Sequence[Recorded]) -> None:
    versions: defaultdict[StreamId, list[int]] = defaultdict(list)
    for event in events:
        versions[event.stream].append(event.version)
    assert len(versions) > PROCESSES * TASKS
    for found in versions.values():
        assert found == list(range(1, len(found) + 1))


def assert_what_was_acknowledged_is_there(
    events: Sequence[Recorded], reports: Sequence[dict[str, Any]]
) -> None:
    positions = {str(event.event_id): event.position for event in events}
    assert len(positions) == len(events)
    for report in reports:
        for event_id, position in report["known"].items():
            assert positions[event_id] == position
