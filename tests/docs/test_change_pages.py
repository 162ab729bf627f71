"""docs/how-to/changes.md and reading.md do what they say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BoolValue, Int32Value

from tests.docs.test_domain_pages import module
from tests.mistakes.test_start import service
from twinlog import Aggregate, Schema, Transaction
from twinlog.rpc import Commands
from twinlog.testing import MemoryLog, given


def as_it_was(account: Aggregate[Any, Any]) -> Aggregate[Any, Any]:
    """The page's aggregate before its events changed: euros, and a type that is retired today."""
    return replace(
        account,
        decide=lambda _account, command: [Int32Value(value=command.cents // 100), BoolValue(value=True)],
        evolve=lambda account, _event: account,
    )


def pay_in(tx: Transaction, page: Any, cents: int) -> None:
    tx.do(page.ACCOUNT, "a", page.PayIn(cents))


async def test_events_of_old_types_are_read_as_what_they_mean_today() -> None:
    page, log = module("changes"), MemoryLog("rooms")
    before = as_it_was(page.ACCOUNT)
    async with service(before, log=log) as running:
        await running.writer.execute(lambda tx: tx.do(before, "a", page.PayIn(500)))
    async with service(page.ACCOUNT, log=log, schema=page.SCHEMA) as running:
        await running.writer.execute(lambda tx: tx.do(page.ACCOUNT, "a", page.PayIn(34)))
        commands = Commands(running.log, running.writer)
        assert await commands.state(page.ACCOUNT, "a") == page.Account(cents=534)
    assert [event.type.rpartition(".")[2] for event in log.events] == [
        "Int32Value",
        "BoolValue",
        "Int64Value",
    ]
    page.test_old_payments_are_read_in_cents()
    with pytest.raises(TypeError, match=r"SCHEMA\.today\(event\)"):
        untyped: Any = page.SCHEMA
        given(untyped)


async def test_a_state_is_read_as_it_was_at_a_version() -> None:
    page, reading, log = module("changes"), module("reading"), MemoryLog("rooms")
    async with service(page.ACCOUNT, log=log) as running:
        for cents in (1, 20, 300):
            await running.writer.execute(partial(pay_in, page=page, cents=cents))
        commands = Commands(running.log, running.writer)
        states = [
            await reading.state_at(commands, Schema(), page.ACCOUNT, "a", version) for version in (1, 2, 3)
        ]
        events, newest = await commands.folded(page.ACCOUNT, "a")
    assert [state.cents for state in states] == [1, 21, 321]
    assert (len(events), newest) == (3, states[-1])
