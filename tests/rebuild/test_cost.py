"""What filling a build of the orders view costs: calls and memory, which no busy machine changes."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from projector.views.orders import ORDERS
from shop.orders.v1.events_pb2 import OrderApproved, OrderCreated
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from tests.bench.counting import counted, of_services
from tests.virtual_time import in_virtual_time
from twinlog import Metadata, Money, Projection, Recorded, Schema
from twinlog.consume import projection
from twinlog.consume.filling import CHUNK
from twinlog.consume.view_builds import Declared, Lacking, ViewBuilds
from twinlog.log.view_builds import LiveBuilds
from twinlog.log.view_store import Build
from twinlog.model.errors import StreamUnreadable
from twinlog.model.event import known_recorded, known_stream
from twinlog.testing import START, MemoryLog, MemoryViews
from twinlog.testing.internals import DeadLettering, RandomIds, ReadAhead, SystemClock


@pytest.fixture(autouse=True)
def environment() -> None:
    """No server is needed."""


CALLS_AN_EVENT = 3.52
"""Of this project's functions: the key of each event, its fold, for every other one the money, the row and a check of
its key."""
MARGIN = 0.03
_TOTAL = Money(10**9, "EUR").to_proto()
_METADATA = Metadata()
_ID = UUID(int=1)


class Orders:
    """A log of orders that are created and approved, made as it is read."""

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        """As a log does."""
        return [_event(position) for position in range(after + 1, after + limit + 1)]


def _event(position: int) -> Recorded:
    order, first = f"{(position - 1) // 2:036}", position % 2 == 1
    ids: Any = {"order_id": order, "customer_id": order}
    message: Any = (
        OrderCreated(total=_TOTAL, saga_mode=SAGA_MODE_CHOREOGRAPHY, **ids) if first else OrderApproved(**ids)
    )
    stream, type = known_stream(("order", order)), message.DESCRIPTOR.full_name
    version, payload = 1 if first else 2, message.SerializeToString()
    return known_recorded(
        ("orders", position, stream, version, _ID, type, payload, _METADATA, order, "", START)
    )


class Discarding(MemoryViews):
    """Keeps no rows, so that what is left in memory is the build's own."""

    async def commit(self, changes: Any, advance: Any, batch: Any = None, **options: Any) -> Any:
        conflict = await super().commit(changes, advance, batch, **options)
        for table in self.tables.values():
            table.clear()
        return conflict


async def filled(events: int) -> None:
    """Fills a build with so many events."""
    store = Discarding(MemoryLog("views"))
    home = Projection("projector.orders", [ORDERS], store, schema=Schema())
    kept = home.of_build(ORDERS, await store.begin_build(ORDERS, 1))
    handler = DeadLettering(kept, store.log, clock=SystemClock(), ids=RandomIds(), schema=Schema())
    after = 0
    async with ReadAhead(Orders(), 0, events, kept.prepare) as chunks:
        while (chunk := await chunks.next()) is not None:
            after = await handler.handle(chunk, after)
    assert after == events


async def test_an_event_costs_no_more_calls_than_it_did() -> None:
    await filled(CHUNK)
    with counted() as calls:
        await filled(4 * CHUNK)
    assert of_services(calls) / (4 * CHUNK) <= CALLS_AN_EVENT * (1 + MARGIN)


async def test_memory_does_not_grow_with_the_number_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_CACHED_ROWS", 500)  # full at once
    peaks = []
    tracemalloc.start()
    try:
        for events in (4 * CHUNK, 16 * CHUNK):
            tracemalloc.reset_peak()
            await filled(events)
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


async def test_the_next_events_are_decoded_while_those_before_are_committed() -> None:
    happened: list[str] = []

    def prepare(events: Sequence[Recorded]) -> None:
        happened.append(f"{events[0].position} is decoded")

    async with ReadAhead(Orders(), 0, 2 * CHUNK, prepare) as chunks:
        while (chunk := await chunks.next()) is not None:
            for _ in range(3):
                await asyncio.sleep(0)
            happened.append(f"{chunk[0].position} is committed")
    assert happened == [
        "1 is decoded",
        f"{CHUNK + 1} is decoded",
        "1 is committed",
        f"{CHUNK + 1} is committed",
    ]


@pytest.mark.parametrize(
    ("samples", "rate"),
    [([], 0), ([(10, 100)], 0), ([(10, 100), (10, 300)], 0), ([(10, 100), (11, 150), (12, 500)], 200)],
)
def test_the_rate_of_a_build_is_events_a_second(samples: Sequence[tuple[float, int]], rate: float) -> None:
    builds = ViewBuilds(lambda _projection, _share: pytest.fail(), lambda _consumer: None)
    assert builds.rate("a build") == 0
    builds._samples["a build"] = deque(samples)
    assert builds.rate("a build") == rate


def test_what_is_read_next_is_compared_with_what_was_read() -> None:
    """And with the home where nothing is known to have been read."""
    view: Any = SimpleNamespace(name="stays", version=1)
    declared = Declared("stays", cast(Any, None), {1: view})
    declared.projections.append(cast(Any, SimpleNamespace(name="p.stays", source="orders", tables=[view])))
    builds = ViewBuilds(lambda _projection, _share: pytest.fail(), lambda _consumer: None)
    builds.declared["stays"] = declared
    home = declared.home(1)
    second, third = (home._replace(number=number, home=False) for number in (2, 3))
    builds.builds["stays"] = [home, second, third]
    assert [*builds._pairs({"stays": second}, {"stays": third})] == [
        ("p.stays@2.orders", "p.stays@3.orders", False)
    ]
    assert [*builds._pairs({}, {"stays": second})] == [("p.stays", "p.stays@2.orders", False)]
    assert [*builds._pairs({"stays": second._replace(dropped=True, number=4)}, {"stays": third})] == []


def test_in_place_of_a_version_that_is_not_declared_the_one_is_read_that_was_left_last() -> None:
    declared = Declared("stays", cast(Any, None), {1: cast(Any, None)})
    builds = ViewBuilds(lambda _projection, _share: pytest.fail(), lambda _consumer: None)
    builds.declared["stays"] = declared
    home = declared.home(1)._replace(live=False, live_until=START)
    left = home._replace(number=2, home=False, live_until=START + timedelta(seconds=1))
    newer = left._replace(number=3, version=2, live=True, live_until=None)
    later = START + timedelta(seconds=9)
    others = [
        left._replace(number=4, dropped=True, live_until=later),
        left._replace(number=5, live_until=None),
        left._replace(number=6, version=3, live_until=later),
        left._replace(view="another", number=7, live_until=later),
    ]
    every = [home, left, newer, *others]
    assert builds._readable(newer, every, {}) == left
    assert builds._readable(newer, every, {"stays": home}) == home, "what this process reads already"
    assert builds._readable(newer, [newer, *others], {}) == newer
    assert builds._readable(left, every, {}) == left


async def test_what_is_set_aside_and_cannot_be_read_may_have_been_shown() -> None:
    class Unread(ViewBuilds):
        async def lacking(self, pairs: Iterable[tuple[str, str]]) -> Lacking:
            raise StreamUnreadable(stream="dead-letters/p", version=1, why="unknown")

    builds = Unread(lambda _projection, _share: pytest.fail(), lambda _consumer: None)
    assert await builds._steps_back("p.stays", "p.stays@2.orders", 7)


@in_virtual_time
async def test_the_first_look_reads_what_is_live_however_slow_the_store_is() -> None:
    """Without it, queries would be answered from the home, until a look that is quick."""

    class Slow:
        live = LiveBuilds()

        async def builds(self) -> Sequence[Build]:
            home = declared.home(1)
            return [home._replace(live=False), home._replace(number=2, home=False)]

        async def checkpoints(self) -> Mapping[str, int]:
            await asyncio.sleep(60)
            return {}

    declared = Declared("stays", cast(Any, Slow()), {1: cast(Any, None)})
    builds = ViewBuilds(lambda _projection, _share: pytest.fail(), lambda _consumer: None)
    builds.declared["stays"] = declared
    await builds.look()
    assert Slow.live.current["stays"].number == 2


async def test_a_build_that_is_gone_is_stopped() -> None:
    class Builds:
        live = LiveBuilds()

        async def builds(self) -> Sequence[Build]:
            return [declared.home(1), declared.home(1)._replace(number=3, home=False, live=False)]

        async def checkpoints(self) -> Mapping[str, int]:
            return {}

    def kept(view: str, number: int) -> Any:
        return SimpleNamespace(consumer=view, stop=lambda: stopped.append((view, number)))

    stopped: list[tuple[str, int]] = []
    declared = Declared("stays", cast(Any, Builds()))
    builds = ViewBuilds(lambda _projection, _share: pytest.fail(), lambda _consumer: None)
    builds.declared["stays"] = declared
    builds.kept = {key: [kept(*key)] for key in [("stays", 2), ("stays", 3), ("another view", 2)]}
    await builds.look()
    assert stopped == [("stays", 2)]
    assert [*builds.kept] == [("stays", 3), ("another view", 2)]
