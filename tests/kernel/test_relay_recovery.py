"""What a relay makes of a stream that somebody else has touched, of a log that was set back, and of outages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from tests.kernel.batches import grow
from tests.twin.damage import MemoryDamage
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog import Recorded, Unavailable
from twinlog.log.lineage import compare
from twinlog.log.twin import TwinDamaged, WrongLastSequence
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.internals import Relay, Twin, to_wire


async def copied(log: MemoryLog, twin: Twin, count: int) -> None:
    """Has a relay copy so many new events, and stop."""
    await grow(log, count)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)


async def refuses(relay: Relay) -> str:
    """Why the relay does not go on."""
    await until(lambda: relay.problem is not None, seconds=10)
    assert relay.position is None
    return str(relay.problem)


@pytest.mark.parametrize("foreign", [1, 3])
async def test_a_foreign_message_never_stands_for_an_event_of_the_log(foreign: int) -> None:
    log, damage = MemoryLog("counters"), MemoryDamage("counters")
    twin = damage.twin()
    relay = Relay(log, twin)
    async with running(relay):
        await grow(log, 5)
        await mirrored(log, twin)
        events = await grow(log, 3)
        for _ in range(foreign):
            await damage.put("7.Other.-", b"someone else's")
        relay.offer(events)  # which the stream refuses: its last sequence is another
        await refuses(relay)
        assert [await twin.message(5 + n) for n in range(1, foreign + 1)] == [b"someone else's"] * foreign


@pytest.mark.parametrize("trimmed", [0, -1])
async def test_a_first_event_that_is_lost_alone_is_put_back(trimmed: int) -> None:
    class Untrimmed(MemoryLog):
        async def trimmed(self) -> int:
            return trimmed

    log, damage = Untrimmed("counters"), MemoryDamage("counters")
    twin = damage.twin()
    await copied(log, twin, 3)
    await damage.remove(1)
    await copied(log, twin, 1)
    assert await twin.message(1)


async def test_an_event_whose_message_was_changed_is_no_event_of_another_history() -> None:
    log, damage = MemoryLog("counters"), MemoryDamage("counters")
    twin = damage.twin()
    await copied(log, twin, 1)
    [second, _] = await grow(log, 2)
    changed = second.subject, to_wire(second._replace(payload=b"changed"))
    for message in (changed, ("3.Other.-", b"someone else's")):
        await damage.put(*message)
        with pytest.raises(TwinDamaged):
            await compare(log, twin, await twin.state())


class Full(MemoryTwin):
    """Takes nothing, as a stream at its limit."""

    async def publish(self, events: Sequence[Recorded]) -> None:
        await asyncio.sleep(0)
        raise WrongLastSequence(stream=self.name, position=events[0].position)


async def test_a_stream_that_takes_no_more_is_a_fault() -> None:
    log, twin = MemoryLog("counters"), Full("counters")
    relay = Relay(log, twin)
    async with running(relay):
        relay.offer(await grow(log, 2))
        assert "counters" in await refuses(relay)


async def test_a_stream_that_lost_an_event_is_made_anew() -> None:
    log, twin = MemoryLog("counters"), MemoryTwin("counters")
    await copied(log, twin, 5)
    assert twin.messages
    del twin.messages[4]
    async with running(Relay(log, twin)):
        await mirrored(log, twin)


async def test_a_rivals_copy_stands_for_the_events_of_the_log() -> None:
    log, twin = MemoryLog("counters"), MemoryTwin("counters")
    relay = Relay(log, twin)
    async with running(relay):
        await grow(log, 5)
        await mirrored(log, twin)
        events = await grow(log, 3)
        await twin.publish(events[:2])
        relay.offer(events)
        await mirrored(log, twin)
        assert relay.problem is None


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_log_that_was_set_back_is_noticed(lost: int) -> None:
    log, twin = MemoryLog("counters"), MemoryTwin("counters")
    await copied(log, twin, 5)
    stored = dict(twin.messages or {})
    del log.events[-lost:]
    relay = Relay(log, twin)
    async with running(relay):
        said = await refuses(relay)
        assert "5" in said
        assert str(5 - lost) in said
    assert twin.messages == stored


async def test_a_log_that_has_grown_by_one_is_only_copied() -> None:
    log, twin = MemoryLog("counters"), MemoryTwin("counters")
    await copied(log, twin, 5)
    await copied(log, twin, 1)


async def test_of_two_events_in_one_place_the_one_that_the_log_holds_is_copied() -> None:
    """The log was set back by one event, which was not copied yet, and has grown again."""
    log = MemoryLog("counters")
    *_, fifth, sixth = await grow(log, 6)
    relay = Relay(log, MemoryTwin("counters"))
    relay._relaying, relay._behind = True, False
    relay.position, relay._event_id = fifth.position, fifth.event_id
    relay.offer([sixth._replace(event_id=uuid4())], fifth.event_id)
    relay.offer([sixth], fifth.event_id)
    assert await relay._next() == [sixth]


@pytest.mark.parametrize("kept", [0, 1, 9])
@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
async def test_a_stream_that_was_restored_to_an_older_state_gets_the_rest_again(
    kept: int, busy: bool
) -> None:
    log, twin = MemoryLog("counters"), MemoryTwin("counters")
    relay = Relay(log, twin)
    async with running(relay):
        await grow(log, 10)
        await mirrored(log, twin)
        assert twin.messages is not None
        twin.messages = {n: twin.messages[n] for n in range(1, kept + 1)}
        twin.last = kept
        if busy:
            relay.offer(await grow(log, 3))
        await mirrored(log, twin)
        assert relay.problem is None
    assert [await twin.message(event.position) for event in log.events] == [to_wire(e) for e in log.events]


class Counted(MemoryLog):
    """Notes from where it is read."""

    def __init__(self) -> None:
        super().__init__("counters")
        self.reads: list[int] = []

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        self.reads.append(after)
        return await super().read(after, limit)


async def test_what_is_offered_in_order_is_not_read_again() -> None:
    log, twin = Counted(), MemoryTwin("counters")
    relay = Relay(log, twin)
    async with running(relay):
        await until(lambda: relay.position == 0)
        for number in range(1, 30):
            events = await grow(log, 3)
            log.reads.clear()
            relay.offer(events)
            await until(lambda at=3 * number: relay.position == at)  # type: ignore[misc]
            if not log.reads:  # now and then, the log is read all the same
                return
    raise AssertionError("what was offered was read each time")


async def test_a_replica_may_be_offered_events_before_it_copies_and_while_it_does_not() -> None:
    log, twin = MemoryLog("counters"), MemoryTwin("counters")
    copying, idle = Relay(log, twin), Relay(log, twin, Never())
    for relay in (copying, idle):
        relay.offer(await grow(log, 2))
    async with running(copying, idle):
        await mirrored(log, twin)
        idle.offer(await grow(log, 2))
        await mirrored(log, twin)
        assert idle.position is None


class Never:
    """A lease that another replica holds."""

    problem: str | None = None

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        await asyncio.Event().wait()


class Telling(MemoryTwin):
    """Counts the notifications."""

    told = 0

    async def notify(self) -> None:
        self.told += 1
        await super().notify()


async def test_a_replica_that_does_not_copy_tells_the_one_that_does() -> None:
    log, twin = MemoryLog("counters"), Telling("counters")
    idle = Relay(log, twin, Never())
    async with running(idle):
        for times in (1, 2):
            idle.offer(await grow(log, 2))
            await until(lambda times=times: twin.told == times)  # type: ignore[misc]


class Away:
    """A part of a server that is away for as long as the test says."""

    away = False

    def reach(self) -> None:
        if self.away:
            raise Unavailable("away")


class AwayLog(MemoryLog, Away):
    async def head(self) -> int:
        self.reach()
        return await super().head()

    async def read(self, after: int, limit: int) -> Sequence[Recorded]:
        self.reach()
        return await super().read(after, limit)


class AwayTwin(MemoryTwin, Away):
    async def publish(self, events: Sequence[Recorded]) -> None:
        self.reach()
        await super().publish(events)


@pytest.mark.parametrize("away", ["log", "twin", "neither"])
async def test_draining_ends_also_during_an_outage_and_says_so(away: str) -> None:
    log, twin = AwayLog("counters"), AwayTwin("counters")
    relay = Relay(log, twin)
    async with running(relay):
        await grow(log, 3)
        await mirrored(log, twin)
        log.away, twin.away = away == "log", away == "twin"
        await grow_unseen(log, 2)
        with capture_logs() as said:
            async with asyncio.timeout(60):
                await relay.drain(0.2 if away == "twin" else 20)
        told = [line for line in said if line["event"] == "relay.not_drained"]
        assert [line["log"] for line in told] == ([] if away == "neither" else ["counters"])
        assert (await twin.state()).last == (5 if away == "neither" else 3)
        log.away = twin.away = False
        await mirrored(log, twin)


async def grow_unseen(log: AwayLog, count: int) -> None:
    """Another process commits."""
    was, log.away = log.away, False
    await grow(log, count)
    log.away = was
