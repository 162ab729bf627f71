"""Readers, writers and loads while rows leave the table: each sees the log as it is, whichever step it meets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from tests.chain.history import verified
from tests.files.test_archive import Site, two_streams
from tests.files.test_archive import site as site
from tests.kernel.batches import NOW, append, batch, counter
from twinlog import Metadata
from twinlog.log.past import Moment
from twinlog.log.ports import ReadRequest
from twinlog.log.scan import Filter
from twinlog.postgres import archiving, past
from twinlog.postgres.connection import fetch
from twinlog.postgres.log import PostgresLog


async def test_whoever_is_at_work_meanwhile_sees_all(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "_STEP", 1)
    await two_streams(site)
    before = list(await site.log.read(0, 100))
    of_b = [event for event in before if event.stream == counter("b")]
    done = asyncio.Event()
    rounds = count()

    async def again(look: Callable[[], Awaitable[object]]) -> None:
        while not done.is_set():
            await look()
            next(rounds)

    async def read() -> None:
        for after in (0, 7, 15):
            assert (await site.log.read(after, 8))[:8] == before[after : after + 8]

    async def load() -> None:
        [slice] = await site.log.load([ReadRequest(counter("b"), upto=10)])
        assert slice.events == of_b

    versions = count(1)

    async def write() -> None:
        await append(site.log, batch((counter("new"), next(versions) - 1, 1)))

    async with asyncio.TaskGroup() as looking:
        for look in (read, load, write):
            looking.create_task(again(look))
        await site.archive("counter")
        done.set()
    assert next(rounds) > 10
    assert (await site.log.read(0, 25)) == before
    assert (await verified(site.log))[0] is None


async def test_a_range_that_moves_between_two_questions_of_one_look_is_seen(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look asks the database several times; a range moves just before one of these questions."""
    monkeypatch.setattr(archiving, "_PAUSE_SECONDS", 0)
    days, size = 25, 5
    for day in range(days):
        event = batch((counter(f"s{day}"), 0, size))
        caused = [each._replace(metadata=Metadata("c", f"other/{day + 1}")) for each in event.events]
        await append(site.log, replace(event, recorded_at=NOW + timedelta(days=day), events=caused))
    end, moved = days * size, 0
    asked = moves_before = 0

    async def hooked(pool: Any, query: str, *arguments: Any) -> Any:
        nonlocal asked, moved
        asked += 1
        if asked == moves_before:
            moved += 1
            made = await site.archive("counter", range=size, before=NOW + timedelta(days=moved))
            assert made.ranges == 1 and made.removed == size
        return await fetch(pool, query, *arguments)

    monkeypatch.setattr(past, "fetch", hooked)

    async def seen(look: Callable[[PostgresLog, int], Awaitable[object]], of: int, before: int) -> object:
        nonlocal asked, moves_before
        asked, moves_before = 0, before
        return await look(PostgresLog(site.log.pool, site.log.name), of)

    looks: Mapping[str, Callable[[PostgresLog, int], Awaitable[object]]] = {
        "position_at": lambda log, of: log.position_at(NOW + timedelta(days=of)),
        "version_at": lambda log, of: log.version_at(
            counter(f"s{of}"), Moment(time=NOW + timedelta(days=of))
        ),
        "causes_of": lambda log, _of: log.causes_of(0, end),
        "causes_between": lambda log, of: log.causes_between(0, (of + 1) * size),
        "related": lambda log, _of: log.related(0, end, ["c"], []),
        "found": lambda log, _of: log.found(Filter(correlation_id="c"), 0, end, end),
        "read": lambda log, _of: log.read(0, end),
        "load": lambda log, of: log.load([ReadRequest(counter(f"s{of}"))]),
    }
    wrong = []
    for name, look in looks.items():
        wanted = await seen(look, moved, 0)
        for before in sorted({2, asked - 1, asked} - {0, 1}):
            of = moved
            wanted = await seen(look, of, 0)
            if await seen(look, of, before) != wanted:
                wrong.append((name, before))
    assert not wrong
    assert moved > len(looks)
