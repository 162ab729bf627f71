"""A small aggregate for tests of the kernel: counts up, never beyond its limit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from twinlog import Aggregate, Events, FailedPrecondition


@dataclass(frozen=True, slots=True)
class Count:
    """How far it has counted."""

    value: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Add:
    """Adds, unless the result is above the limit."""

    amount: int
    limit: int = 10**9


def decide(count: Count, add: Add) -> Events:
    if count.value + add.amount > add.limit:
        raise FailedPrecondition("too much")
    return [Int64Value(value=add.amount)] if add.amount else []


def evolve(count: Count, event: Message) -> Count:
    assert isinstance(event, Int64Value)
    return replace(count, value=count.value + event.value, events=count.events + 1)


COUNTER: Aggregate[Count, Add] = Aggregate(
    "counter", Count(), decide, evolve, partition_key=lambda _count: "one"
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Rings once, when it is due."""

    due: datetime | None = None
    rung: bool = False


@dataclass(frozen=True, slots=True)
class Set:
    """Sets the alarm."""

    due: datetime


@dataclass(frozen=True, slots=True)
class Ring:
    """The time has come."""


def decide_alarm(alarm: Alarm, command: Set | Ring) -> Events:
    match command:
        case Set(due):
            return [StringValue(value=due.isoformat())]
        case Ring() if alarm.due:
            return [StringValue(value="")]
    return []


def evolve_alarm(alarm: Alarm, event: Message) -> Alarm:
    assert isinstance(event, StringValue)
    if event.value:
        return Alarm(datetime.fromisoformat(event.value))
    return Alarm(None, rung=True)


ALARM: Aggregate[Alarm, Set | Ring] = Aggregate(
    "alarm",
    Alarm(),
    decide_alarm,
    evolve_alarm,
    partition_key=lambda _alarm: "one",
    due=lambda alarm: alarm.due,
    on_due=lambda _alarm, _now: Ring(),
)
