"""Consistent cuts: the largest in what was recorded by a time, found without looking at every event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from twinlog import Log, Metadata, StreamId
from twinlog.log import cuts, history
from twinlog.log.history import Cut, LogHistory, OtherHistory
from twinlog.log.past import KnowsCauses, Moment
from twinlog.memory.log import MemoryLog
from twinlog.model.event import NewEvent
from twinlog.testing.internals import Batch, RandomIds

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
IDS = RandomIds()
LOGS = ("a", "b", "c")


async def append(log: Log, cause: str, at: float, *, version: int = 0, stream: str = "") -> None:
    """One event with a cause, in a stream of its own unless it says otherwise."""
    id = StreamId("counter", stream or str(IDS.uuid7()))
    new = NewEvent.of(id, version + 1, IDS.uuid7(), Int64Value(value=1), Metadata(causation_id=cause), "one")
    await log.append(Batch(BEGAN + timedelta(seconds=at), {id: version}, [new]))


async def filled(random: Random, count: int, skew: float) -> Mapping[str, MemoryLog]:
    """Logs whose events cause each other, in that order; each log's clock is off by up to ``skew`` seconds."""
    logs = {name: MemoryLog(name) for name in LOGS}
    off = {name: random.uniform(-skew, skew) for name in LOGS}
    causes = ["rpc/Call", "timer/a/17", ""]
    for second in range(count):
        name = random.choice(LOGS)
        await append(logs[name], random.choice(causes[-6:]), second + off[name])
        causes.append(f"{name}/{len(logs[name].events)}")
    return logs


def histories(logs: Mapping[str, Log]) -> Mapping[str, LogHistory]:
    return {name: LogHistory(log) for name, log in logs.items()}


def largest(logs: Mapping[str, MemoryLog], cut: Cut) -> Cut:
    """The largest consistent cut in another one, event by event."""
    within = dict(cut)
    while True:
        before = dict(within)
        for name, log in logs.items():
            for event in log.events[: within[name]]:
                cause, _, position = event.metadata.causation_id.partition("/")
                if cause in logs and int(position) > within[cause]:
                    within[name] = event.position - 1
                    break
        if within == before:
            return within


@pytest.mark.parametrize("seed", range(6))
async def test_the_largest_one_is_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MARK_EVERY", 7)
    random = Random(seed)
    logs = await filled(random, 300, skew=5)
    shrunk = 0
    for _ in range(30):
        any_cut = {name: random.randint(0, len(log.events)) for name, log in logs.items()}
        assert await cuts.closed(histories(logs), any_cut) == largest(logs, any_cut)
        time = BEGAN + timedelta(seconds=random.uniform(0, 300))
        recorded = {name: (await LogHistory(log).at(time)).position for name, log in logs.items()}
        found = await cuts.at_time(histories(logs), time)
        assert found == largest(logs, recorded)
        shrunk += found != recorded
    assert shrunk, "a time alone makes no cut"


async def test_a_position_is_in_its_cut_with_all_that_led_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MARK_EVERY", 7)
    logs = await filled(Random(1), 300, skew=20)
    for name, log in logs.items():
        for event in log.events[::9]:
            found = await cuts.at_position(histories(logs), name, event.position, event.recorded_at)
            assert found[name] == event.position
            assert found == largest(logs, found)


async def test_what_caused_the_events_of_a_log_is_remembered(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MARK_EVERY", 10)
    assert isinstance(log, KnowsCauses)
    for number in range(1, 36):
        await append(log, f"orders/{number}" if number % 2 else f"sagas/{100 - number}", number)
    own = LogHistory(log)
    assert await own.causes(0) == {}
    assert await own.causes(1) == {"orders": 1}
    assert await own.causes(4) == {"orders": 3, "sagas": 98}
    assert await own.causes(1_000) == {"orders": 35, "sagas": 98}
    assert [(position, *sorted(causes.items())) for position, causes in await log.causal_marks()] == [
        (10, ("orders", 9), ("sagas", 98)),
        (20, ("orders", 19), ("sagas", 98)),
        (30, ("orders", 29), ("sagas", 98)),
    ]
    for cut, position in (
        ({"orders": 100, "sagas": 100}, 35),
        ({"orders": 100}, 35),
        ({"orders": 24, "sagas": 100}, 24),
        ({"orders": 25, "sagas": 100}, 26),
        ({"orders": 100, "sagas": 97}, 1),
        ({"orders": 0, "sagas": 0}, 0),
    ):
        assert await own.closed({**cut, log.name: 1_000}) == position
        assert await own.closed({**cut, log.name: 7}) == min(position, 7)


async def test_moments_are_found(log: Log) -> None:
    for version in range(10):
        await append(log, "", version, version=version, stream="s")
        await append(log, "", version)
    own = LogHistory(log)
    found = await own.at(BEGAN + timedelta(seconds=3.5))
    assert (found.position, found.next_at) == (8, BEGAN + timedelta(seconds=4))
    assert (await own.at(BEGAN - timedelta(days=1))).position == 0
    assert (await own.at(None)).position == (await own.place(10**6)).position == 20
    stream = StreamId("counter", "s")

    async def versions(moment: Moment, after: int = 0, after_id: object = None) -> Sequence[int]:
        events = own.events(stream, moment, after, after_id)  # type: ignore[arg-type]
        return [event.version async for page in events for event in page]

    assert await versions(Moment()) == list(range(1, 11))
    assert await versions(Moment(version=3)) == [1, 2, 3]
    assert await versions(Moment(position=5), after=1) == [2, 3]
    assert await versions(Moment(time=BEGAN + timedelta(seconds=1))) == [1, 2]
    third = (await log.read(4, 1))[0]
    assert await versions(Moment(version=5), 3, third.event_id) == [4, 5]
    assert await versions(Moment(version=3), 3, third.event_id) == []
    for moment, after in ((Moment(), 2), (Moment(version=2), 3), (Moment(), 30)):
        with pytest.raises(OtherHistory, match=f"has another event at version {after}"):
            await versions(moment, after, third.event_id)
