"""What a release wrote is read for good: as the same messages, of the same bytes, that come to the same states."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from proof.auditor.shop import LOGS
from shop.customers.v1 import events_pb2 as customers
from shop.orders.v1 import events_pb2 as orders
from shop.sagas.v1 import commands_pb2 as commands
from stack.topology import SERVICES
from tests.corpus.meaning import meaning
from twinlog import Recorded, StreamId
from twinlog.log.wire import from_wire
from twinlog.model.event import NewEvent
from twinlog.model.messages import message_class
from twinlog.testing.internals import to_wire
from twinlog.v1 import dead_letters_pb2, saga_pb2

RELEASES = sorted(each.name for each in Path(__file__).parent.iterdir() if (each / "orders.jsonl").exists())
SCHEMAS = {service.log: service.schema for service in SERVICES}
AGGREGATES = {of.log: {each.name: each for each in of.aggregates} for of in LOGS}
KEPT = [
    (release, file.stem)
    for release in RELEASES
    for file in sorted((Path(__file__).parent / release).glob("*.jsonl"))
]
WRITTEN = """
shop.customers.v1: CreditLimitChanged CreditReleased CreditReservationFailed CreditReserved CustomerCreated
shop.orders.v1: OrderApprovalRefused OrderApproved OrderCancelled OrderCreated OrderRejected SagaModeChanged
shop.sagas.v1: ApproveOrder RejectOrder ReleaseCredit ReserveCredit
twinlog.v1: EventDiscarded EventParked EventReplayFailed EventReplayed SagaAborted SagaCommandRetried SagaCompensated
twinlog.v1: SagaCompleted SagaInterrupted SagaNeedsAttention SagaRetryRequested SagaStarted SagaStepCompensated
twinlog.v1: SagaStepFailed SagaStepSkipped SagaStepSucceeded
"""
"""Every type that 0.1.0 writes, by package."""

NOT_RELEASED = {
    "shop.customers.v1.CustomerErased",
    "twinlog.v1.SagaAnswerKept",
    "twinlog.v1.SagaStepDeferred",
}
"""Types that no release has written yet."""
NO_EVENTS = {"twinlog.v1.SagaAwaited"}
"""Messages that stand only inside of events."""


@cache
def kept(release: str, log: str) -> list[tuple[Recorded, Mapping[str, Any]]]:
    """The events that a release wrote into a log, and what it said of each."""
    path = Path(__file__).parent / release / f"{log}.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(from_wire(line["subject"], base64.b64decode(line["message"])), line) for line in lines]


def test_every_type_of_the_first_release_is_kept() -> None:
    lines = [line.split(": ") for line in WRITTEN.split("\n") if line]
    written = {f"{package}.{name}" for package, names in lines for name in names.split()}
    assert {
        event.type for log in ("orders", "customers", "sagas") for event, _ in kept("0.1.0", log)
    } == written


def test_every_type_of_today_is_kept_or_newer_than_the_last_release() -> None:
    """Who adds a type names it here, and has it dumped when the next release is recorded."""
    declared = {
        message.full_name
        for file in (orders, customers, commands, saga_pb2, dead_letters_pb2)
        for message in file.DESCRIPTOR.message_types_by_name.values()
    }
    ever = {event.type for release, log in KEPT for event, _ in kept(release, log)}
    assert declared - ever == NOT_RELEASED | NO_EVENTS
    assert ever <= declared  # what was written once stays readable


@pytest.mark.parametrize(("release", "log"), KEPT)
def test_events_are_read_and_say_what_they_said(release: str, log: str) -> None:
    for event, line in kept(release, log):
        messages = SCHEMAS[log].decode(event)
        assert messages == (ParseDict(line["says"], message_class(line["type"])()),), event.address


@pytest.mark.parametrize(("release", "log"), KEPT)
def test_the_same_event_is_written_as_the_same_bytes(release: str, log: str) -> None:
    """So that replicas of both releases copy a log into one stream, and neither takes the other's for a fork."""
    for event, line in kept(release, log):
        assert to_wire(event) == base64.b64decode(line["message"]), event.address
        assert event.subject == line["subject"]
        message = message_class(event.type).FromString(event.payload)
        again = NewEvent.of(
            event.stream, event.version, event.event_id, message, event.metadata, event.partition_key
        )
        assert (again.payload, again.routing_key) == (event.payload, event.routing_key), event.address


@pytest.mark.parametrize(("release", "log"), KEPT)
def test_events_come_to_the_same_states(release: str, log: str) -> None:
    states: dict[StreamId, Any] = {}
    for event, line in kept(release, log):
        aggregate = AGGREGATES[log].get(event.stream.type)
        if aggregate is None:  # the mode of new orders is no matter of the audit
            assert line.get("then") is None or event.stream.type == "saga_mode"
            continue
        state = states.get(event.stream, aggregate.initial)
        for message in SCHEMAS[log].decode(event):
            state = aggregate.evolve(state, message)
        states[event.stream] = state
        assert meaning(state) == line["then"], event.address
    assert states
