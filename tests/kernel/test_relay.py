"""The relay where several processes write one log."""

from __future__ import annotations

from collections.abc import Sequence

from tests.kernel.batches import grow
from tests.waiting import until
from twinlog.event import Recorded, to_wire
from twinlog.memory import MemoryLog, MemoryTwin
from twinlog.relay import Relay
from twinlog.tasks import Tasks


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
