"""News of a dead letter that another replica replayed: what is remembered of rows from before is forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.dead_letters.journal import CONSUMER, OPERATOR, Source, dead_lettering, positions
from twinlog import Projection, Schema
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.testing import MemoryViews


async def looks(replica: DeadLettering) -> None:
    await replica.dead_letters()


async def lists(replica: DeadLettering) -> None:
    operations = DeadLetterOperations(replica._log)
    operations.add(replica)
    assert await operations.listed() == []


async def opens(replica: DeadLettering) -> None:
    await replica.checkpoint()


async def nothing(replica: DeadLettering) -> None:
    """The first event that follows brings the news."""


@pytest.mark.parametrize("hears", [looks, lists, opens, nothing])
async def test_no_row_from_before_a_replay_overwrites_what_it_did(
    hears: Callable[[DeadLettering], Awaitable[None]],
) -> None:
    source, views = Source(), MemoryViews()

    def replica() -> DeadLettering:
        projection = Projection(CONSUMER, [source.view("all")], views, schema=Schema())
        return dead_lettering(projection, views.log)

    source.poison = {"a:1"}
    one, two = replica(), replica()
    first, _ = events = source.add("a:1", "b:2")
    at = await one.handle(events, 0)
    assert views.tables["journal"]["all"].written == "2"
    source.poison.clear()
    await two.replay(first, OPERATOR)
    await hears(one)
    at = await one.handle(source.add("b:3", "a:4"), at)
    assert views.tables["journal"]["all"].written == "2 1 3 4"
    assert positions(await one.dead_letters()) == {}
    # The other one has rows from before that, too, and takes over.
    assert await two.checkpoint() == at
    await two.handle(source.add("c:5"), at)
    assert views.tables["journal"]["all"].written == "2 1 3 4 5"
