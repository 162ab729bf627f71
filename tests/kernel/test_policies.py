"""Policies that make aggregates: these are not looked for, and still made only once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from tests.kernel.batches import append, batch, counter, recorded
from tests.kernel.counter import COUNTER, Add
from twinlog import FailedPrecondition, Policies, Schema, Writer, on
from twinlog.consume.consumer import Progress
from twinlog.consume.policies import PolicyConsumer
from twinlog.log import group_commit
from twinlog.log.ports import CheckpointAdvance, ReadRequest, StreamSlice
from twinlog.testing import MemoryLog
from twinlog.testing.internals import RandomIds, SystemClock

TABLE = Policies(
    "counters", "tests", {Int64Value: lambda event: on(COUNTER, "a").create(Add(event.value, limit=5))}
)


class LoadsNoted(MemoryLog):
    """A log that notes which counters were looked for."""

    def __init__(self) -> None:
        super().__init__("own")
        self.loaded: list[str] = []

    async def load(self, wanted: Sequence[ReadRequest]) -> Sequence[StreamSlice]:
        self.loaded += [want.stream.id for want in wanted if want.stream.type == COUNTER.name]
        return await super().load(wanted)


@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize(("there", "values"), [(0, [3]), (2, [1, 2])], ids=["new", "there already"])
async def test_what_a_policy_creates_is_looked_for_only_where_it_is_there_already(
    there: int, values: list[int], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a writer that shuts the others out after so many rounds."""
    monkeypatch.setattr(group_commit, "_OPTIMISTIC_ROUNDS", rounds)
    log = LoadsNoted()
    if there:
        await append(log, batch((counter("a"), 0, there)))  # it counts 1 and 2: 3 more are too many
    async with (
        Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as decides,
        asyncio.timeout(60),
    ):
        consumer = PolicyConsumer(TABLE, decides, log, Schema())
        advance = CheckpointAdvance(consumer.name, 0, 3)
        (event,) = recorded("counters", 1, after=2)
        with pytest.raises(FailedPrecondition) if there else nullcontext():
            await consumer.apply([event], Progress(consumer.name, advance, SystemClock(), RandomIds()))
    written = [Int64Value.FromString(e.payload).value for e in await log.read(0, 10)]
    assert written == values
    assert bool(log.loaded) == bool(there)
