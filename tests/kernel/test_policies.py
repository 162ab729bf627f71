"""Policies that make aggregates: these are not looked for, and still made only once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from tests.kernel.batches import append, batch, counter, recorded
from tests.kernel.counter import COUNTER, Add
from twinlog.errors import FailedPrecondition
from twinlog.log import History, Wanted
from twinlog.memory import MemoryLog
from twinlog.policies import Policies, PolicyHandler, on
from twinlog.ports import RandomIds, SystemClock
from twinlog.writer import Writer

TABLE = Policies(
    "counters", "tests", {Int64Value: lambda event: on(COUNTER, "a").create(Add(event.value, limit=5))}
)


class LoadsNoted(MemoryLog):
    """A log that notes which counters were looked for."""

    def __init__(self) -> None:
        super().__init__("own")
        self.loaded: list[str] = []

    async def load(self, wanted: Sequence[Wanted]) -> Sequence[History]:
        self.loaded += [want.stream.id for want in wanted if want.stream.type == COUNTER.name]
        return await super().load(wanted)


@pytest.mark.parametrize(
    ("there", "looked_for", "values"), [(0, [], [3]), (2, ["a"], [1, 2])], ids=["new", "there already"]
)
async def test_what_a_policy_creates_is_looked_for_only_where_it_is_there_already(
    there: int, looked_for: list[str], values: list[int]
) -> None:
    log = LoadsNoted()
    if there:
        await append(log, batch((counter("a"), 0, there)))  # it counts 1 and 2: 3 more are too many
    async with Writer(log, clock=SystemClock(), ids=RandomIds()) as writer:
        handler = PolicyHandler(TABLE, writer, log)
        (event,) = recorded("counters", 1, after=2)
        with pytest.raises(FailedPrecondition) if there else nullcontext():
            await handler.attempt([event], 0)
    written = [Int64Value.FromString(e.payload).value for e in await log.read(0, 10)]
    assert (log.loaded, written) == (looked_for, values)
