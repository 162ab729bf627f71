"""A log that lost its last events is noticed by whoever appends, copies or follows; a plan puts it right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.cursor.consumers import PolicyKind
from tests.cursor.test_cursor import running as following
from tests.kernel.batches import batch, counter, grow, new_event
from tests.kernel.counter import COUNTER, Add
from tests.repair.copying import service
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog import Metadata, Recorded, Schema, StreamId, Unavailable, Writer
from twinlog.consume import filling
from twinlog.consume.filling import Filling
from twinlog.log import group_commit
from twinlog.log.lease import ALWAYS_HELD
from twinlog.log.lineage import Lineage
from twinlog.log.ports import Conflict, Handled, Tip
from twinlog.log.repair import (
    GivenUp,
    Unrepairable,
    before_all,
    difference,
    given_up,
    notes_of_given_up,
    only_notes_of_projections,
    plan,
    shared_by,
)
from twinlog.log.snapshots import Snapshots
from twinlog.log.states import StateCache
from twinlog.log.streams import beginning
from twinlog.log.twin import LogForked, Twin, TwinState
from twinlog.testing import START, MemoryLog, MemoryTwin
from twinlog.testing.internals import Appended, Batch, Cursor, Relay


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog("counters")


@pytest.fixture
def twin() -> MemoryTwin:
    return MemoryTwin("counters")


def cut(log: MemoryLog, keep: int) -> None:
    """Sets a log back, as a failover does to a server that lacks the last commits."""
    log.events[keep:] = []
    log.streams.clear()
    for event in log.events:
        log.streams.setdefault(event.stream, []).append(event)


async def add(writer: Writer) -> int:
    outcome = await writer.execute(lambda tx: tx.do(COUNTER, "w", Add(1)).value)
    return outcome.result


async def mend(log: MemoryLog, twin: MemoryTwin) -> None:
    found = await difference(log, twin)
    assert found.complete
    versions = {
        stream: sum(event.position < found.since for event in events)
        for stream, events in log.streams.items()
    }
    log.repair(plan(log.events[found.since - 1 :], found.theirs, versions, log.checkpoints))


async def test_a_writer_appends_nothing_to_a_log_that_lost_what_it_knows(
    log: MemoryLog, twin: MemoryTwin
) -> None:
    async with service(log, twin) as (writer, relay, lineage):
        for _ in range(3):
            await add(writer)
        await mirrored(log, twin)
        whole = [*log.events]
        cut(log, 1)
        with pytest.raises(LogForked) as refused:
            await add(writer)
        assert refused.value.facts["since"] == "2"
        assert "`twinlog repair counters` puts it back" in str(refused.value)
        assert len(log.events) == 1
        await until(lambda: relay.problem is not None)
        await mend(log, twin)
        assert log.events == whole
        await until(lambda: relay.problem is None)
        assert await add(writer) == 4  # what it remembered of the counter was forgotten, and read again
        await mirrored(log, twin)
        await until(lambda: lineage.problem is None)


async def test_a_fork_is_named_also_while_it_is_not_known_what_became_of_an_append(
    log: MemoryLog, twin: MemoryTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes away with the answer, and one that lacks the last commits takes its place."""
    monkeypatch.setattr(group_commit, "_FAIL_FAST_AFTER_SECONDS", -1.0)
    append = log.append

    async def fails_over(batch: Batch) -> Appended | Conflict:
        cut(log, 1)
        lineage.doubt()
        monkeypatch.setattr(log, "append", append)
        raise Unavailable("the database is out of reach (connection lost)")

    async with service(log, twin) as (writer, _, lineage):
        for _ in range(3):
            await add(writer)
        await mirrored(log, twin)
        monkeypatch.setattr(log, "append", fails_over)
        unknown = asyncio.create_task(add(writer))
        await until(lambda: writer._group_commit.down is not None)
        with pytest.raises(LogForked):
            await add(writer)
        await mend(log, twin)
        assert await unknown == 4


@pytest.mark.parametrize("lost", [1, 5])
@pytest.mark.parametrize("again", [0, 1, 4, 5, 6, 30])
async def test_the_relay_copies_nothing_beyond_a_fork(
    log: MemoryLog, twin: MemoryTwin, lost: int, again: int
) -> None:
    relay = Relay(log, twin)
    async with running(relay):
        relay.offer(await grow(log, 20))
        await mirrored(log, twin)
        before = dict(twin.messages or {})
        cut(log, 20 - lost)
        if again:
            relay.offer(await grow(log, again, "b"), log.events[-again - 1].event_id)
        await until(lambda: relay.problem is not None)
        assert f"two histories from event {20 - lost + 1} on" in str(relay.problem)
        assert twin.messages == before
        await mend(log, twin)
        await mirrored(log, twin)
        await until(lambda: relay.problem is None)
    assert [event.stream.id for event in log.events] == ["a"] * 20 + ["b"] * again


async def test_a_doubt_about_a_sound_log_makes_nothing_void(log: MemoryLog, twin: MemoryTwin) -> None:
    lineage = Lineage(log, twin)
    for upto in (0, 1, 3):
        if upto:
            lineage.committed((await grow(log, upto - len(log.events)))[-1])
        lineage.doubt()
        await lineage.verify()
        assert lineage.known is not None
        assert (lineage.known.position, lineage.breaks) == (upto, 0)


async def test_a_relay_that_starts_on_a_fork_notices_it(
    log: MemoryLog, twin: MemoryTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(log, 20)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)
    cut(log, 15)
    await grow(log, 40, "b")
    looks = 0

    async def state() -> TwinState:
        nonlocal looks
        looks += 1
        return await MemoryTwin.state(twin)

    monkeypatch.setattr(twin, "state", state)
    relay = Relay(log, twin)
    async with running(relay):
        await until(lambda: "from event 16 on" in str(relay.problem) and looks >= 3)
    assert twin.last == 20
    assert log.eras == 1, "every writer has to compare what it knows, once"


class PassedOn:
    """A lease that goes from replica to replica, as the test says."""

    problem: str | None = None

    def __init__(self) -> None:
        self.mine = asyncio.Event()
        self.taken = asyncio.Event()

    async def hold(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await self.mine.wait()
            working = asyncio.create_task(work())
            await self.taken.wait()
            working.cancel()
            await asyncio.wait([working])
            self.taken.clear()


async def test_a_relay_that_another_has_stood_in_for_takes_the_next_fork_for_a_new_one(
    log: MemoryLog, twin: MemoryTwin
) -> None:
    await grow(log, 20)
    lease = PassedOn()
    lease.mine.set()
    relay = Relay(log, twin, lease)
    async with running(relay):
        await mirrored(log, twin)
        cut(log, 15)
        await until(lambda: "from event 16 on" in str(relay.problem))
        assert log.eras == 1
        lease.mine.clear()
        lease.taken.set()
        await until(lambda: not relay.dumped()["here"])
        await mend(log, twin)
        async with running(Relay(log, twin)):
            await mirrored(log, twin)
        cut(log, 18)
        repaired = log.eras
        lease.mine.set()
        await until(lambda: "from event 19 on" in str(relay.problem))
    assert log.eras == repaired + 1, "every writer has to compare what it knows once more"


async def test_what_is_known_of_a_history_that_is_gone_is_not_saved(log: MemoryLog) -> None:
    snapshots = Snapshots(log)
    states = StateCache(snapshots, Schema(), 10)
    stream = counter("a")
    snapshots._queue(stream, beginning(COUNTER)._replace(version=100))
    states.known[stream] = beginning(COUNTER)
    states.clear()
    assert (snapshots.waiting, [*states.known]) == (0, [])


async def test_an_append_is_refused_by_the_event_that_it_knows(log: MemoryLog) -> None:
    events = await grow(log, 3)
    known = [
        (Tip(0, 3, events[2].event_id), True),
        (Tip(0, 1, events[0].event_id), True),
        (Tip(0, 0, None), True),
        (Tip(0, 3, events[1].event_id), False),
        (Tip(0, 4, events[2].event_id), False),
        (Tip(1, 3, events[2].event_id), False),
    ]
    for number, (tip, fits) in enumerate(known):
        write = batch((counter(f"t{number}"), 0, 1))
        result = await log.append(Batch(write.recorded_at, write.expects, write.events, tip=tip))
        assert getattr(result, "forked", False) is not fits


async def test_a_cursor_handles_nothing_of_another_history(log: MemoryLog, twin: MemoryTwin) -> None:
    own = MemoryLog("own")
    kind = PolicyKind("counters", own)
    relay = Relay(log, twin)
    async with running(relay):
        await grow(log, 5)
        async with kind.replica() as handler, following(Cursor(twin, handler)):
            await until(lambda: own.checkpoints.get("tests.counters") == 5)
    cut(log, 3)
    await grow(log, 9, "b")
    twin.messages = None  # somebody deletes the stream, which held the only copy
    effects = list(await kind.effects())
    async with running(Relay(log, twin)), kind.replica() as handler:
        cursor = Cursor(twin, handler)
        async with following(cursor):
            await until(lambda: "has handled another event 5" in str(cursor.problem))
            assert "`twinlog repair counters --dry-run` says what to do" in str(cursor.problem)
    assert list(await kind.effects()) == effects


async def test_a_build_is_filled_with_nothing_of_another_history(
    log: MemoryLog, twin: MemoryTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from the log itself, which was set back under it and grew again."""

    @asynccontextmanager
    async def opened(_log: str, _twin: Twin) -> AsyncIterator[MemoryLog]:
        yield log

    monkeypatch.setattr(filling, "CHUNK", 2)
    monkeypatch.setattr(filling, "NEAR", 0)
    await grow(log, 6)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)
    cut(log, 3)
    await grow(log, 3, "b")
    own = MemoryLog("own")
    async with PolicyKind("counters", own).replica() as handler:
        build = Filling(twin, handler, Cursor(twin, handler), ALWAYS_HELD, opened, log="counters")
        async with following(build):
            await until(lambda: "two histories from event 4 on" in str(build.problem))
        assert own.checkpoints == {"tests.counters": 2}


async def test_a_cursor_waits_visibly_for_a_stream_that_is_filled_again(
    log: MemoryLog, twin: MemoryTwin
) -> None:
    own = MemoryLog("own")
    async with PolicyKind("counters", own).replica() as handler:
        events = await grow(log, 5)
        own.checkpoints["tests.counters"] = 4
        await twin.create(1)
        await twin.publish(events[:3])
        cursor = Cursor(twin, handler)
        async with following(cursor):
            await until(lambda: "ends with 3" in str(cursor.problem))
            assert "`twinlog repair counters --dry-run` says why" in str(cursor.problem)
            await twin.publish(events[3:])
            await until(lambda: own.checkpoints["tests.counters"] == 5)
            assert cursor.problem is None


async def test_a_stream_that_was_trimmed_up_to_what_was_handled_is_followed(
    log: MemoryLog, twin: MemoryTwin
) -> None:
    """Nothing is left of what was handled last, so there is nothing to compare it with."""
    events = await grow(log, 8)
    own = MemoryLog("own")

    def handled_all() -> bool:
        return own.checkpoints["tests.counters"] == 8

    for handled, first in ((5, 6), (3, 6), (5, 4)):
        await twin.delete()
        await twin.create(first)
        await twin.publish(events[first - 1 :])
        own = MemoryLog("own")
        own.checkpoints["tests.counters"] = 5
        own.handled["tests.counters"] = Handled(handled, events[handled - 1].event_id)
        async with PolicyKind("counters", own).replica() as handler, following(Cursor(twin, handler)):
            await until(handled_all)


async def test_a_stream_that_lacks_what_comes_next_is_waited_for(log: MemoryLog, twin: MemoryTwin) -> None:
    events = await grow(log, 8)
    await twin.create(7)
    await twin.publish(events[6:])
    own = MemoryLog("own")
    own.checkpoints["tests.counters"] = 5
    async with PolicyKind("counters", own).replica() as handler:
        cursor = Cursor(twin, handler)
        async with following(cursor):
            await until(lambda: "events 6 to 6 are gone" in str(cursor.problem))
            await twin.delete()
            await twin.create(1)
            await twin.publish(events)
            await until(lambda: own.checkpoints["tests.counters"] == 8)


async def test_a_checkpoint_that_was_set_beyond_every_event_shows(log: MemoryLog, twin: MemoryTwin) -> None:
    """The event that was handled last is there: by that alone, all would look well while nothing moves."""
    own = MemoryLog("own")
    async with running(Relay(log, twin)), PolicyKind("counters", own).replica() as handler:
        cursor = Cursor(twin, handler)
        async with following(cursor):
            await grow(log, 5)
            await until(lambda: own.checkpoints.get("tests.counters") == 5)
        own.checkpoints["tests.counters"] = 50
        async with following(cursor):
            await until(lambda: "ends with 5, and tests.counters has handled event 50" in str(cursor.problem))
            own.checkpoints["tests.counters"] = 5
            await grow(log, 2)
            await until(lambda: own.checkpoints["tests.counters"] == 7)
            assert cursor.problem is None


async def test_a_cursor_notices_that_its_database_was_set_back(log: MemoryLog, twin: MemoryTwin) -> None:
    own = MemoryLog("own")
    async with (
        running(Relay(log, twin)),
        PolicyKind("counters", own).replica() as handler,
        following(Cursor(twin, handler)),
    ):
        await grow(log, 5)
        await until(lambda: own.checkpoints.get("tests.counters") == 5)
        own.checkpoints["tests.counters"] = 0  # and no event comes that would show it
        own.streams.clear()
        own.events.clear()
        await until(lambda: own.checkpoints.get("tests.counters") == 5)
    assert len(own.events) == 5


# --- plans ---


def event(
    position: int, id: str, version: int, *, cause: str = "rpc/Add", actor: str = "svc", type: str = "counter"
) -> Recorded:
    new = new_event(StreamId(type, id), version)._replace(metadata=Metadata("c", cause, "", actor))
    return Recorded("counters", position, *new, batch().recorded_at)


async def test_a_stream_with_a_changed_message_still_gives_back_what_the_log_lost(
    log: MemoryLog, twin: MemoryTwin
) -> None:
    async with running(Relay(log, twin)):
        await grow(log, 9)
        await mirrored(log, twin)
    log.events[2] = log.events[2]._replace(payload=b"as it should be")
    cut(log, 6)
    found = await difference(log, twin)
    assert (found.damaged, found.since, len(found.theirs)) == ("its message 3 was changed", 7, 3)
    assert found.complete


def test_what_nobody_has_seen_is_moved_behind_what_others_have() -> None:
    theirs = [event(4, "a", 2), event(5, "b", 1)]
    ours = [event(4, "c", 1), event(5, "c", 2)]
    made = plan(ours, theirs, {StreamId("counter", "a"): 1}, {})
    assert list(made.restored) == theirs
    assert [(one.position, one.event_id) for one in made.kept] == [
        (6, ours[0].event_id),
        (7, ours[1].event_id),
    ]
    assert (made.given_up, dict(made.moved)) == ([], {4: 6, 5: 7})


def test_a_stream_that_went_another_way_is_given_up_from_there_on() -> None:
    theirs = [event(4, "a", 2)]
    ours = [event(4, "a", 2), event(5, "a", 3), event(6, "b", 1)]
    made = plan(ours, theirs, {StreamId("counter", "a"): 1}, {})
    assert (list(made.given_up), [one.stream.id for one in made.kept]) == (ours[:2], ["b"])


@pytest.mark.parametrize(("last", "positions"), [(9, [10]), (10, [10]), (12, [10, 11, 12])])
def test_what_is_given_up_is_noted_in_the_place_of_all_of_it(last: int, positions: list[int]) -> None:
    notes = notes_of_given_up("counters", GivenUp(8, last), 9, 2, START)
    assert [note.position for note in notes] == positions
    assert [note.version for note in notes] == [position - 7 for position in positions]
    assert {given_up(note) for note in notes} == {(8, last)}


def test_who_follows_what_came_to_the_places_of_lost_events_proves_nothing_of_them() -> None:
    def made(ms: int) -> UUID:
        return UUID(int=ms << 80 | 7 << 76 | 2 << 62)

    lost = [(20, made(20)), (30, made(30))]
    assert shared_by([(5, made(5)), (12, made(12)), (14, made(40)), (50, made(90))], lost) == 12
    assert shared_by([(5, uuid4()), (25, uuid4())], [(20, uuid4())]) == 5
    assert shared_by([(5, made(5)), (50, made(50))], []) == 50
    assert shared_by([], lost) == 0


def test_ids_tell_when_none_of_their_events_was_there() -> None:
    def made(at: datetime) -> UUID:
        return UUID(int=int(at.timestamp() * 1_000) << 80 | 7 << 76 | 2 << 62)

    some = [made(START + timedelta(days=1)), made(START)]
    assert before_all(some) == START - timedelta(seconds=1)
    assert before_all([]) is before_all([*some, uuid4()]) is None


class Reconnects(MemoryLog):
    """Makes another connection the first time it is asked."""

    asked = 0

    @property
    def connections(self) -> int:
        return min(self.asked, 1)

    async def era(self) -> int:
        self.asked += 1
        return await super().era()


async def test_a_connection_that_a_comparison_makes_is_compared_as_well(twin: MemoryTwin) -> None:
    log = Reconnects("counters")
    await Lineage(log, twin).verify()
    assert log.asked == 2


def test_one_of_another_aggregate_with_the_same_id_is_not_given_up_with_it() -> None:
    ours = [event(4, "a", 2), event(5, "a", 1, type="alarm")]
    made = plan(ours, [event(4, "a", 2)], {StreamId("counter", "a"): 1}, {})
    assert (list(made.given_up), [one.event_id for one in made.kept]) == (ours[:1], [ours[1].event_id])


def test_an_event_that_was_recorded_twice_stays_once() -> None:
    theirs = [event(4, "a", 2), event(5, "b", 1)]
    ours = [theirs[1]._replace(position=4)]
    made = plan(ours, theirs, {StreamId("counter", "a"): 1}, {})
    assert (list(made.kept), list(made.given_up), dict(made.moved)) == ([], [], {4: 5})


def test_consumers_stand_where_what_was_put_back_proves_them() -> None:
    theirs = [event(4, "a", 2, cause="orders/7"), event(5, "b", 1, cause="orders/9")]
    made = plan([], theirs, {StreamId("counter", "a"): 1}, {"svc.orders": 5, "svc.sagas": 3})
    assert made.checkpoints == {"svc.orders": 9}


def test_consumers_do_again_what_they_did_in_vain() -> None:
    theirs = [event(4, "a", 2, cause="orders/7")]
    ours = [
        event(4, "a", 2, cause="orders/7"),
        event(5, "a", 3, cause="orders/8"),  # cannot follow: its stream went another way
        event(6, "b", 1, cause="orders/9"),  # could; but then orders/8 would never be handled
        event(7, "c", 1, cause="rpc/Add"),
    ]
    made = plan(ours, theirs, {StreamId("counter", "a"): 1}, {"svc.orders": 9})
    assert made.checkpoints == {"svc.orders": 7}
    assert ([one.stream.id for one in made.given_up], [one.stream.id for one in made.kept]) == (
        ["a", "a", "b"],
        ["c"],
    )


def test_a_stream_that_is_out_of_order_is_not_put_back() -> None:
    with pytest.raises(Unrepairable):
        plan([], [event(4, "a", 3)], {StreamId("counter", "a"): 1}, {})


def test_dead_letters_of_projections_prove_nothing() -> None:
    parked = [
        event(4, "projector.orders", 1, cause="orders/9", actor="projector.orders", type="dead_letters")
    ]
    assert only_notes_of_projections(parked)
    assert plan([], parked, {}, {"projector.orders": 3}).checkpoints == {}


async def test_a_stream_that_another_repair_deletes_while_it_is_compared_is_to_be_compared_again(
    log: MemoryLog, twin: MemoryTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(log, 3)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)
    state = twin.state

    async def seen_last() -> TwinState:
        before = await state()
        await twin.delete()
        return before

    monkeypatch.setattr(twin, "state", seen_last)
    with pytest.raises(Unavailable, match="stream counters has changed meanwhile; try again"):
        await difference(log, twin)
