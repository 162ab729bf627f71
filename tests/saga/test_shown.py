"""The list of sagas is sent only the events that say that they change it."""

from __future__ import annotations

import pytest

from saga_orchestrator.views import SHOWN, evolve
from tests.controls import order_created
from tests.kernel.batches import recorded
from twinlog.model.messages import pack
from twinlog.testing.internals import routing_key_of
from twinlog.v1 import saga_pb2 as saga

EVENTS = sorted(saga.DESCRIPTOR.message_types_by_name)
STARTED = saga.SagaStarted(version=1, trigger=pack(order_created()))


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_that_changes_a_row_has_the_tag(name: str) -> None:
    message = getattr(saga, name)()
    (event,) = recorded("sagas", 1, message=STARTED)
    row = evolve(None, event, STARTED)
    started = name == "SagaStarted"
    unchanged = not started and evolve(row, event, message) == row
    assert routing_key_of(message) == SHOWN or unchanged


def test_a_step_forward_is_not_sent() -> None:
    assert routing_key_of(saga.SagaStepSucceeded()) != SHOWN
