"""A saga that is subscribed hears its own events; a table that leaves open which those are is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, BytesValue, Int64Value, StringValue
from structlog.testing import capture_logs

from tests.kernel.batches import recorded
from tests.memory_service import memory_service
from tests.saga.tables import makes
from tests.waiting import until
from twinlog import ConfigurationError, Saga, SagaStatus, Schema, Service, Step, StreamId, saga_aggregate
from twinlog.log.repair import caused_by
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_routing import saga_policies
from twinlog.testing import CountedIds, ManualClock, MemoryLog, MemoryTwin

SOURCES: Mapping[str, Sequence[type[Message]]] = {"rooms": [StringValue], "payments": [Int64Value, BoolValue]}


def trip(version: int = 1, **more: Any) -> Saga:
    """A StringValue starts it, an Int64Value answers it and a BoolValue refuses."""
    steps = [Step("pay", send=makes("Send", 0), done=Int64Value, refused=BoolValue)]
    given: dict[str, Any] = {"sources": SOURCES, "id": lambda _event: "t1", **more}
    return Saga("trip", version, StringValue, steps, partition_key=lambda _trigger: "one", **given)


def service(log: MemoryLog, twins: Mapping[str, MemoryTwin], aggregates: Sequence[SagaAggregate]) -> Service:
    parts = {"clock": ManualClock(), "ids": CountedIds(), "aggregates": aggregates}
    return memory_service("trip_svc", log, twins.__getitem__, **parts)


async def twins_of(*logs: str) -> Mapping[str, MemoryTwin]:
    """Their twins, from position 1 on."""
    twins = {name: MemoryTwin(name) for name in logs}
    for twin in twins.values():
        await twin.create(1)
    return twins


async def test_replies_of_any_log_reach_the_instance_that_they_name() -> None:
    sagas, log = saga_aggregate(trip()), MemoryLog("own")
    twins = await twins_of("own", *SOURCES)
    running = service(log, twins, [sagas])
    stream = StreamId("trip_saga", "t1")
    async with asyncio.timeout(60), running.running():
        running.subscribe(sagas)
        assert {*running.dead_letters.consumers} == {
            "trip_svc.trip_saga.rooms",
            "trip_svc.trip_saga.payments",
        }
        await twins["rooms"].publish(recorded("rooms", 1, message=StringValue(value="sea view")))
        await until(lambda: len(log.streams.get(stream, ())) == 2)
        await twins["payments"].publish(recorded("payments", 1, message=Int64Value(value=7)))
        await until(lambda: len(log.streams[stream]) == 3)
    consumers = [caused_by(event)[0] for event in log.streams[stream]]  # what a repair goes by
    assert consumers == ["trip_svc.trip_saga.rooms"] * 2 + ["trip_svc.trip_saga.payments"] * (
        len(consumers) - 2
    )
    events = [message for event in log.streams[stream] for message in Schema().decode(event)]
    instance = sagas.fold(events)
    assert instance.status is SagaStatus.COMPLETED
    assert instance.context.replies["pay"] == Int64Value(value=7)


async def test_a_second_trigger_changes_nothing_and_is_told_where_it_is_another_event() -> None:
    sagas, log = saga_aggregate(trip()), MemoryLog("own")
    twins = await twins_of("own", *SOURCES)
    running = service(log, twins, [sagas])
    with capture_logs() as said:
        async with asyncio.timeout(60), running.running():
            running.subscribe(sagas)
            for after, view in enumerate(["sea view", "sea view", "garden"]):
                await twins["rooms"].publish(recorded("rooms", 1, after, StringValue(value=view)))
            await until(lambda: any(each["event"] == "saga.trigger_ignored" for each in said))
    told = [each for each in said if each["event"] == "saga.trigger_ignored"]
    assert told == [
        {
            "event": "saga.trigger_ignored",
            "saga": "trip_saga",
            "id": "t1",
            "trigger": "rooms/3",
            "log_level": "warning",
        }
    ]
    events = log.streams[StreamId("trip_saga", "t1")]
    assert [event.position for event in events] == [1, 2]


async def test_a_saga_whose_timers_nobody_fires_is_refused() -> None:
    running = service(MemoryLog("own"), {"own": MemoryTwin("own")}, [])
    with pytest.raises(ConfigurationError, match="add it to the spec's aggregates"):
        running.subscribe(saga_aggregate(trip()))


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"id": None}, "give id="),
        ({"interrupted_by": {StringValue: str}}, "StringValue starts instances.*let that be another event"),
        ({"sources": {}}, "StringValue comes from no log"),
        ({"sources": {"rooms": [StringValue], "payments": [Int64Value]}}, "BoolValue comes from no log"),
        ({"sources": {**SOURCES, "mail": [BytesValue]}}, "BytesValue of log mail is named by no step"),
        ({"sources": {**SOURCES, "mail": [Int64Value]}}, "say which log has it"),
    ],
)
def test_a_table_that_leaves_the_way_of_its_events_open_is_refused(
    more: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        saga_policies(saga_aggregate(trip(**more)), "trip_svc", ManualClock())


def test_what_an_older_version_hears_is_heard_as_well() -> None:
    old = trip(1, sources={"rooms": [StringValue], "bank": [Int64Value, BoolValue]})
    policies = saga_policies(saga_aggregate(old, trip(2)), "trip_svc", ManualClock())
    assert {each.log: set(each.rules) for each in policies} == {
        "rooms": {StringValue},
        "bank": {Int64Value, BoolValue},
        "payments": {Int64Value, BoolValue},
    }
