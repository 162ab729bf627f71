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
from twinlog import ConfigurationError, Policies
from twinlog.model.routing import NO_ROUTING_KEY, has_routing_key
from twinlog.testing.internals import routing_key_of

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
