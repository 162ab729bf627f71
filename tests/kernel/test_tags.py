"""What events say of themselves that consumers can choose by."""

from __future__ import annotations

from typing import cast

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from shop.customers.v1 import events_pb2 as credit
from shop.orders.v1 import events_pb2 as orders
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION, SagaMode
from shop.sagas.v1 import commands_pb2 as saga
from tests.kernel.batches import recorded
from twinlog import Aggregate, ConfigurationError, Policies, Schema, Writer
from twinlog.model.errors import StreamUnreadable
from twinlog.model.routing import NO_ROUTING_KEY, has_routing_key
from twinlog.testing import MemoryLog
from twinlog.testing.internals import RandomIds, SystemClock, routing_key_of

NEWER = cast("SagaMode.ValueType", 9)
TAGGED = [
    orders.OrderCreated,
    orders.OrderApproved,
    orders.OrderApprovalRefused,
    orders.OrderRejected,
    orders.OrderCancelled,
    credit.CreditReserved,
    credit.CreditReservationFailed,
    credit.CreditReleased,
]


@pytest.mark.parametrize("event", TAGGED)
def test_every_event_of_a_saga_says_how_it_is_run(event: type[Message]) -> None:
    assert routing_key_of(event(saga_mode=SAGA_MODE_CHOREOGRAPHY)) == "SAGA_MODE_CHOREOGRAPHY"
    assert routing_key_of(event(saga_mode=SAGA_MODE_ORCHESTRATION)) == "SAGA_MODE_ORCHESTRATION"


@pytest.mark.parametrize(
    "event", [StringValue(value="x"), orders.SagaModeChanged(saga_mode=SAGA_MODE_CHOREOGRAPHY)]
)
def test_an_event_without_such_a_field_has_none(event: Message) -> None:
    assert routing_key_of(event) == NO_ROUTING_KEY


def test_a_value_that_a_newer_version_knows_is_its_number() -> None:
    assert routing_key_of(orders.OrderApproved(saga_mode=NEWER)) == "9"


async def test_under_such_a_value_nothing_is_decided() -> None:
    """The consumers of the newer version ask for its name, and would never hear of it."""
    aggregate: Aggregate[int, SagaMode.ValueType] = Aggregate(
        "order",
        0,
        lambda _, mode: [orders.OrderApproved(saga_mode=mode)],
        lambda count, _: count + 1,
        partition_key=lambda _: "one",
    )
    log = MemoryLog("orders")
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        with pytest.raises(StreamUnreadable, match="its routing key, 9, is unknown to this program"):
            await writer.execute(lambda tx: tx.do(aggregate, "a", NEWER))
        await writer.execute(lambda tx: tx.do(aggregate, "a", SAGA_MODE_CHOREOGRAPHY))
    assert [event.routing_key for event in log.events] == ["SAGA_MODE_CHOREOGRAPHY"]


@pytest.mark.parametrize(
    ("command", "service"),
    [
        (saga.ReserveCredit(), "customer_svc"),
        (saga.ReleaseCredit(), "customer_svc"),
        (saga.ApproveOrder(), "order_svc"),
        (saga.RejectOrder(), "order_svc"),
    ],
)
def test_a_command_says_who_it_is_for(command: Message, service: str) -> None:
    assert routing_key_of(command) == service


def test_a_table_for_a_tag_takes_only_events_that_can_have_one() -> None:
    assert has_routing_key(orders.OrderApproved)
    assert has_routing_key(saga.ApproveOrder)
    assert not has_routing_key(orders.SagaModeChanged)
    with pytest.raises(
        ConfigurationError, match=r"SagaModeChanged has no routing key.*leave routing_key out"
    ):
        Policies("orders", "tests", {orders.SagaModeChanged: lambda _event: None}, routing_key="RED")


def test_it_is_the_last_token_of_the_subject() -> None:
    (event,) = recorded("orders", 1, message=orders.OrderApproved(saga_mode=SAGA_MODE_ORCHESTRATION))
    assert event.subject.split(".")[2:] == ["OrderApproved", "SAGA_MODE_ORCHESTRATION"]
