"""How often the logs say how many dead letters there are."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from structlog.types import EventDict

from tests.dead_letters.journal import Source, replica
from tests.waiting import until
from twinlog.consume import dead_letter_operations
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.testing import MemoryLog


async def test_counts_are_said_when_they_change_and_now_and_then_while_there_are_any(
    monkeypatch: pytest.MonkeyPatch, lines: list[EventDict]
) -> None:
    monkeypatch.setattr(dead_letter_operations, "_LOOK_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(dead_letter_operations, "_SAY_EVERY_LOOKS", 20)
    source, log = Source(), MemoryLog("own")
    source.poison = {"a:1", "b:1"}
    operations = DeadLetterOperations(log)
    look, said_at_looks = operations._look, list[int]()
    """How many lines there were at each look."""

    async def counted(consumer: DeadLettering) -> None:
        said_at_looks.append(len(said()))
        await look(consumer)

    monkeypatch.setattr(operations, "_look", counted)

    def said() -> list[int]:
        return [line["parked"] for line in lines if line["event"] == "dead_letters"]

    async with replica(source, log) as handler:
        operations.add(handler)
        running = asyncio.create_task(operations.run())
        await until(lambda: len(said_at_looks) >= 50)
        assert said() == [], "there are none, and that is nothing to say"
        at = await handler.handle(source.add("a:1"), 0)
        await until(lambda: len(said()) >= 4)
        looks = [said_at_looks.index(count) for count in range(1, 4)]
        assert [later - sooner for sooner, later in pairwise(looks)] == [20, 20]
        await handler.handle(source.add("b:1"), at)
        await until(lambda: said()[-1] == 2)
        assert sorted(said()) == said()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
