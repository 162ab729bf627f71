"""Who holds what an append takes is told while nobody appends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from structlog.testing import capture_logs

from tests.virtual_time import in_virtual_time
from twinlog.log.held import Held
from twinlog.model.errors import Unavailable

PSQL = {"4/2": "pid 1 (psql)"}


def told(held: Held) -> str | None:
    """Its problem."""
    return held.problem


class Locks:
    """What is held, as the store tells it; None: it is away."""

    def __init__(self) -> None:
        self.held: Mapping[str, str] | None = {}
        self.appends = False

    async def ask(self) -> Mapping[str, str]:
        """What is held."""
        if self.held is None:
            raise Unavailable("the database is away")
        return self.held


@in_virtual_time
async def test_a_transaction_that_holds_a_log_for_two_seconds_is_told_until_it_ends() -> None:
    locks = Locks()
    held = Held("orders", locks.ask, lambda: locks.appends)
    task = asyncio.create_task(held.run())
    with capture_logs() as said:
        await asyncio.sleep(5)
        locks.held = PSQL
        await asyncio.sleep(2)
        assert told(held) is None
        await asyncio.sleep(1.1)
        assert told(held) == "log orders: the next append would wait; it is held up by pid 1 (psql)"
        locks.held = None
        await asyncio.sleep(1)
        assert told(held) is None, "an outage is told by those who use the store"
        locks.held = PSQL
        await asyncio.sleep(3)
        assert told(held)
        locks.held = {}
        await asyncio.sleep(1)
        assert told(held) is None
    assert [(line["event"], line["log"]) for line in said if line["log_level"] != "debug"] == [
        ("writer.stalled", "orders"),
        ("writer.goes_on", "orders"),
    ] * 2
    task.cancel()


@in_virtual_time
async def test_transactions_that_follow_each_other_are_no_problem() -> None:
    locks = Locks()
    held = Held("orders", locks.ask, lambda: False)
    task = asyncio.create_task(held.run())
    for number in range(10):
        locks.held = {f"4/{number}": "pid 1"}
        await asyncio.sleep(1)
        assert told(held) is None
    task.cancel()


@in_virtual_time
async def test_an_append_that_waits_says_so_itself() -> None:
    locks = Locks()
    locks.held, locks.appends = PSQL, True
    held = Held("orders", locks.ask, lambda: locks.appends)
    task = asyncio.create_task(held.run())
    with capture_logs() as said:
        await asyncio.sleep(5)
    assert told(held)
    assert said == []
    task.cancel()
