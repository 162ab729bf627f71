"""Rows looked up together: who shares a statement, and what a failure, a cancellation or a late answer does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from tests.waiting import until
from twinlog.model.errors import Unavailable
from twinlog.postgres.lookups import Lookups


class Table:
    """Answers when it is told to; its row of a key says in which statement it was read."""

    def __init__(self) -> None:
        self.asked: list[Sequence[str]] = []
        self.answers: list[asyncio.Future[None]] = []

    async def rows(self, keys: Sequence[str]) -> Mapping[str, str]:
        self.asked.append(sorted(keys))
        number = len(self.asked)
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer
        return {key: f"{key}{number}" for key in keys if key != "nobody"}

    def answer(self, number: int) -> None:
        self.answers[number - 1].set_result(None)


async def begun(table: Table, number: int) -> None:
    await until(lambda: len(table.answers) == number)


async def test_who_asks_at_the_same_moment_shares_a_statement() -> None:
    table = Table()
    lookups = Lookups(table.rows)
    asking = asyncio.gather(*(lookups.row(key) for key in ("a", "b", "a", "nobody")))
    await begun(table, 1)
    table.answer(1)
    assert await asking == ["a1", "b1", "a1", None]
    assert table.asked == [["a", "b", "nobody"]]


async def test_who_asks_later_is_told_what_was_read_later() -> None:
    table = Table()
    lookups = Lookups(table.rows)
    first = asyncio.ensure_future(lookups.row("a"))
    await begun(table, 1)
    later = [asyncio.ensure_future(lookups.row(key)) for key in ("a", "b", "c")]
    await asyncio.sleep(0)
    table.answer(1)
    assert await first == "a1"
    await begun(table, 2)
    table.answer(2)
    assert await asyncio.gather(*later) == ["a2", "b2", "c2"]
    assert table.asked == [["a"], ["a", "b", "c"]]


async def test_a_statement_that_hangs_holds_up_nobody_else() -> None:
    table = Table()
    lookups = Lookups(table.rows)
    hanging = asyncio.ensure_future(lookups.row("a"))
    await begun(table, 1)
    other = asyncio.ensure_future(lookups.row("b"))
    await begun(table, 2)
    table.answer(2)
    assert await other == "b2"
    assert not hanging.done()
    table.answer(1)
    assert await hanging == "a1"


async def test_a_failure_is_told_to_those_who_shared_it_and_to_nobody_after() -> None:
    table = Table()
    lookups = Lookups(table.rows)
    asking = asyncio.gather(lookups.row("a"), lookups.row("b"), return_exceptions=True)
    await begun(table, 1)
    table.answers[0].set_exception(Unavailable())
    assert [type(error) for error in await asking] == [Unavailable, Unavailable]
    again = asyncio.ensure_future(lookups.row("a"))
    await begun(table, 2)
    table.answer(2)
    assert await again == "a2"


async def test_a_caller_that_goes_takes_nothing_from_the_others() -> None:
    table = Table()
    lookups = Lookups(table.rows)
    gone, stays = (asyncio.ensure_future(lookups.row("a")) for _ in range(2))
    await begun(table, 1)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    table.answer(1)
    assert await stays == "a1"
