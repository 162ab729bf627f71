"""A replica that does not copy its log says where the stream that it reads stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from structlog.testing import capture_logs

from tests.kernel.batches import grow
from tests.twin.relaying import mirrored, running
from tests.virtual_time import in_virtual_time
from tests.waiting import until
from twinlog import Unavailable
from twinlog.log.twin import TwinState
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import Relay

HOUR = 3_600.0


class Passed:
    """A lease that another replica has until it is passed on."""

    problem = None
    holder, mine = "orders-2", False

    def __init__(self) -> None:
        self.here = asyncio.Event()

    async def hold(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self.here.wait()
        await work()


class Counted(MemoryTwin):
    """Counts the looks at it, and may be away."""

    looks = 0
    away = False

    async def state(self) -> TwinState:
        self.looks += 1
        if self.away:
            raise Unavailable("no connection")
        return await super().state()


async def stream_of(name: str) -> MemoryTwin:
    twin = MemoryTwin(name)
    await twin.create(1)
    return twin


def events(said: list[Any]) -> list[str]:
    return [line["event"] for line in said if line["event"] in ("relay.stands_still", "relay.goes_on")]


async def told(relay: Relay) -> str:
    await until(lambda: relay.problem is not None)
    return str(relay.problem)


@in_virtual_time
async def test_replicas_with_two_nats_servers_are_not_silent() -> None:
    """The one that copies is well; the stream of the other one stands still, or was never made."""
    for here in (await stream_of("orders"), MemoryTwin("orders")):
        log, there = MemoryLog("orders"), MemoryTwin("orders")
        copies, lease = Relay(log, there), Passed()
        stands_by = Relay(log, here, lease)
        with capture_logs() as said:
            async with running(copies, stands_by):
                await grow(log, 3)
                await mirrored(log, there)
                grown = asyncio.get_running_loop().time()
                problem = await told(stands_by)
                assert 19 < asyncio.get_running_loop().time() - grown < 21, "three looks after it was seen"
                assert copies.problem is None
                await asyncio.sleep(HOUR)
                assert events(said) == ["relay.stands_still"], "said once"
                lease.here.set()
                await mirrored(log, here)
                await until(lambda: stands_by.problem is None)  # noqa: B023
        assert problem.startswith(
            "stream orders stands still at event 0, log orders is at 3, and orders-2 copies it"
        )
        assert "NATS_URL" in problem
        assert events(said) == ["relay.stands_still", "relay.goes_on"]


@in_virtual_time
async def test_a_stream_that_grows_slowly_is_no_problem() -> None:
    log, twin = MemoryLog("orders"), await stream_of("orders")
    stands_by = Relay(log, twin, Passed())
    async with running(stands_by):
        for event in await grow(log, 60):
            await twin.publish([event])
            await asyncio.sleep(9)
            assert stands_by.problem is None


@in_virtual_time
async def test_an_idle_log_and_a_server_that_is_away_are_no_problem_of_a_standby() -> None:
    log, twin = MemoryLog("orders"), Counted("orders")
    await twin.create(1)
    await twin.publish(await grow(log, 3))
    stands_by = Relay(log, twin, Passed())
    async with running(stands_by):
        await asyncio.sleep(HOUR)
        assert stands_by.problem is None
        assert twin.looks <= HOUR / 5, "a look every five seconds"
        await grow(log, 3)
        await asyncio.sleep(12)
        twin.away = True
        await asyncio.sleep(HOUR)
        assert stands_by.problem is None
        twin.away, back = False, asyncio.get_running_loop().time()
        assert "stands still at event 3" in await told(stands_by)
        assert asyncio.get_running_loop().time() - back > 10, "looks of before an outage do not count"
