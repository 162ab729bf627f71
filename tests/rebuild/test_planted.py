"""Faults that are planted in a rebuild, in memory: each is noticed by what is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.rebuild.program import POISON, STAYS, STAYS_2
from twinlog import Metadata, Projection, Recorded, Schema, StreamId
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import Failure
from twinlog.log.view_build import Build
from twinlog.memory.log import MemoryLog
from twinlog.testing import START, MemoryViews
from twinlog.testing.internals import RandomIds, SystemClock

_IDS = RandomIds()


def event(position: int, guest: str) -> Recorded:
    """A guest comes."""
    payload, id = StringValue(value=guest).SerializeToString(), _IDS.uuid7()
    stream, type = StreamId("stay", guest), "google.protobuf.StringValue"
    return Recorded("stays", position, stream, 1, id, type, payload, Metadata(), guest, "", START)


class World:
    """A view and a second version of it, in memory."""

    def __init__(self) -> None:
        self.store = MemoryViews(MemoryLog("views"))
        self.home = Projection("s.stays", [STAYS, STAYS_2], self.store, schema=Schema())
        self.home.keep([STAYS])
        self.handlers: dict[str, DeadLettering] = {}

    async def begin(self) -> Build:
        return await self.store.begin_build(STAYS_2, 1)

    async def handle(self, projection: Projection, events: Sequence[Recorded]) -> None:
        """As a cursor, or a filling, has them handled."""
        handler = self.handlers.setdefault(
            projection.name,
            DeadLettering(projection, self.store.log, clock=SystemClock(), ids=_IDS, schema=Schema()),
        )
        await handler.handle(events, await handler.checkpoint())

    async def unaccounted(self, build: Build, events: Sequence[Recorded]) -> set[int]:
        """Events up to the checkpoint that are neither in the build nor set aside."""
        kept = self.home.of_build(STAYS_2, build)
        rows = self.store.tables.get(f"{build.place}/{STAYS_2.table}", {})
        parked = {letter.position for _, letter in (await self.handlers[kept.name].dead_letters()).letters()}
        upto = await self.store.checkpoint(kept.name)
        return {
            each.position
            for each in events
            if each.position <= upto and each.stream.id not in rows and each.position not in parked
        }


EVENTS = [event(1, "ann"), event(2, POISON), event(3, "bob")]


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "skips-parked-event"])
async def test_a_rebuilt_view_that_skips_a_parked_event_is_noticed(
    planted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if planted:

        async def skip(
            self: DeadLettering, event: Recorded, _failure: Failure, after: int, _error: Any = None
        ) -> int:
            return await self._attempt([event._replace(type="shop.Unknown")], after)

        monkeypatch.setattr(DeadLettering, "dead_letter", skip)
    monkeypatch.setattr("twinlog.consume.dead_lettering.RETRIES", 0)
    world = World()
    build = await world.begin()
    await world.handle(world.home.of_build(STAYS_2, build), EVENTS)
    assert await world.unaccounted(build, EVENTS) == ({2} if planted else set())


@pytest.mark.parametrize("planted", [False, True], ids=["as it is", "switch-steps-back"])
async def test_a_switch_that_steps_back_is_noticed(planted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if planted:
        switch = MemoryViews.switch

        async def blindly(self: MemoryViews, to: Build, _consumers: Mapping[str, str]) -> Mapping[str, int]:
            return await switch(self, to, {})

        monkeypatch.setattr(MemoryViews, "switch", blindly)
    world = World()
    build = await world.begin()
    new = world.home.of_build(STAYS_2, build)
    await world.handle(world.home, [EVENTS[0], EVENTS[2]])
    await world.handle(new, EVENTS[:1])
    behind = await world.store.switch(build, {world.home.name: new.name})
    live = next(each for each in await world.store.builds() if each.live)
    shown = await world.store.checkpoint(new.name if live.number == build.number else world.home.name)
    assert (shown < 3) is planted
    assert bool(behind) is not planted
