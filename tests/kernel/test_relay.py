"""The relay and the cursor where several processes serve one log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random

from structlog.testing import capture_logs

from tests.kernel.batches import grow
from tests.waiting import until
from twinlog import Recorded, Unavailable
from twinlog._aio.tasks import Tasks
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import Cursor, Relay, TwinState, to_wire


def crash(_task: str, error: BaseException) -> None:
    raise error


async def copied(log: MemoryLog, twin: MemoryTwin) -> Sequence[bytes | None]:
    return [await twin.message(event.position) for event in log.events]


async def test_events_that_another_process_committed_are_not_skipped() -> None:
    log, twin = MemoryLog("counters"), MemoryTwin("counters")
    relay = Relay(log, twin)

    async with Tasks(crash) as tasks:
        tasks.start("relay", relay.run())
        await until(lambda: relay.position == 0)
        ours: list[Recorded] = []
        for number in range(6):
            events = await grow(log, 2)
            if number % 2 == 0:  # the others are another process's: nobody hands them to this relay
                ours += events
        relay.offer(ours)
        await until(lambda: relay.position == 12)

    assert await copied(log, twin) == [to_wire(event) for event in log.events]


class Trimmed(MemoryLog):
    """A log whose stream may be empty up to event 5."""

    async def trimmed(self) -> int:
        return 5


async def test_a_trimmed_stream_is_made_again_from_where_it_began_without_a_hitch() -> None:
    log, twin = Trimmed("counters"), MemoryTwin("counters")
    await grow(log, 8)
    relay = Relay(log, twin)
    with capture_logs() as said:
        async with Tasks(crash) as tasks:
            tasks.start("relay", relay.run())
            await until(lambda: relay.position == 8)
    assert await twin.state() == TwinState(6, 8, 0)
    assert [line["event"] for line in said] == ["relay.twin_created"]


class RefusesAtFirst(MemoryTwin):
    """Its stream cannot be created at first."""

    refusals = 0

    async def create(self, first: int) -> None:
        if self.refusals < 3:
            self.refusals += 1
            raise Unavailable
        await super().create(first)


async def test_a_created_stream_is_logged_once_and_only_when_it_exists() -> None:
    log, twin = MemoryLog("counters"), RefusesAtFirst("counters")
    relay = Relay(log, twin, randomness=Random(1))

    with capture_logs() as said:
        async with Tasks(crash) as tasks:
            tasks.start("relay", relay.run())
            await until(lambda: said[-1:] != [] and said[-1]["event"] == "relay.copying")

    assert [line["event"] for line in said] == ["relay.stopped", "relay.twin_created", "relay.copying"]
    assert twin.refusals == 3


class LostLease:
    """Is held until the test says that it is lost; never again after that."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.given_up = asyncio.Event()
        self.problem: str | None = None

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(work())
        await self.lost.wait()
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        self.given_up.set()
        await asyncio.Event().wait()


class DeadTwin(MemoryTwin):
    """Its server is away."""

    async def state(self) -> TwinState:
        raise Unavailable


class Idle:
    """A handler whose store is away."""

    name, types, routing_key = "idle", (), ""

    async def checkpoint(self) -> int:
        raise Unavailable

    async def last_handled(self) -> None:
        return None

    async def stored(self) -> int:
        return 0

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        return after


async def test_a_relay_that_lost_its_lease_has_no_problem_any_more() -> None:
    lease = LostLease()
    relay = Relay(MemoryLog("counters"), DeadTwin("counters"), lease)

    async with Tasks(crash) as tasks:
        tasks.start("relay", relay.run())
        await until(lambda: relay.problem is not None)
        lease.lost.set()
        await lease.given_up.wait()

        assert (relay.problem, relay.position) == (None, None)


async def test_a_cursor_that_lost_its_lease_has_no_problem_any_more() -> None:
    lease = LostLease()
    cursor = Cursor(MemoryTwin("counters"), Idle(), lease)

    async with Tasks(crash) as tasks:
        tasks.start("cursor", cursor.run())
        await until(lambda: cursor.problem is not None)
        lease.lost.set()
        await lease.given_up.wait()

        assert cursor.problem is None
