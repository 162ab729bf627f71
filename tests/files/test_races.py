"""Readers, writers and loads while rows leave the table: each sees the log as it is, whichever step it meets."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from tests.chain.history import verified
from tests.files.test_archive import Site, two_streams
from tests.files.test_archive import site as site
from tests.kernel.batches import append, batch, counter
from twinlog.log.ports import ReadRequest
from twinlog.postgres import archiving


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
