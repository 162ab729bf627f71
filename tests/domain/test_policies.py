"""Who does what about which event, in each mode: the policy tables of the three services, read as tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from customer_svc import policies as customer_svc
from customer_svc.domain import CUSTOMER, ReleaseCredit, ReserveCredit, week_of
from order_svc import policies as order_svc
from order_svc.domain import ORDER, ApproveOrder, RejectOrder
from saga_orchestrator import policies as saga_orchestrator
from saga_orchestrator.credit_saga import CREDIT_SAGAS, saga_id
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_CANCELLED,
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_DEADLINE_EXCEEDED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
)
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from shop.sagas.v1 import commands_pb2 as saga
from tests.controls import (
    CUSTOMER_ID,
    DEADLINE,
    ORDER_ID,
    TOTAL,
    Mode,
    approval_refused,
    credit_released,
    credit_reserved,
    order_approved,
    order_cancelled,
    order_created,
    order_rejected,
    reservation_failed,
)
from twinlog import Begin, Dispatch, Policies, Reply, on, timestamp
from twinlog.testing import START, ManualClock

CHOREOGRAPHY, ORCHESTRATION = SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
CREDIT_OF_ORDERS, CREDIT_OF_SAGAS = customer_svc.policies(ManualClock())
OF_ORDERS, OF_CUSTOMERS = saga_orchestrator.policies(ManualClock())
IDS: dict[str, Any] = {"order_id": ORDER_ID, "customer_id": CUSTOMER_ID}


def reserve(mode: Mode, deadline: datetime | None = None, week: int = 0) -> Dispatch:
    return on(CUSTOMER, CUSTOMER_ID).do(ReserveCredit(CUSTOMER_ID, ORDER_ID, TOTAL, mode, deadline, week))


def release(mode: Mode) -> Dispatch:
    return on(CUSTOMER, CUSTOMER_ID).do(ReleaseCredit(CUSTOMER_ID, ORDER_ID, mode))


def in_saga(command: Begin | Reply) -> Dispatch:
    return on(CREDIT_SAGAS, saga_id(ORDER_ID)).do(command)


SOON = START + timedelta(seconds=30)
APPROVE = on(ORDER, ORDER_ID).do(ApproveOrder())


@pytest.mark.parametrize(
    ("policies", "event", "steps"),
    [
        (CREDIT_OF_ORDERS, order_created(), [reserve(CHOREOGRAPHY, DEADLINE, week_of(START, DEADLINE))]),
        (CREDIT_OF_ORDERS, order_cancelled(), [release(CHOREOGRAPHY)]),
        (
            CREDIT_OF_ORDERS,
            order_rejected(REJECTION_REASON_DEADLINE_EXCEEDED),
            [release(CHOREOGRAPHY)],
        ),
        (CREDIT_OF_ORDERS, order_rejected(REJECTION_REASON_INSUFFICIENT_CREDIT), []),
        (order_svc.CHOREOGRAPHY, credit_reserved(), [APPROVE]),
        *[
            (
                order_svc.CHOREOGRAPHY,
                reservation_failed(reason),
                [on(ORDER, ORDER_ID).do(RejectOrder(reason))],
            )
            for reason in (
                REJECTION_REASON_INSUFFICIENT_CREDIT,
                REJECTION_REASON_UNKNOWN_CUSTOMER,
                REJECTION_REASON_CURRENCY_MISMATCH,
            )
        ],
    ],
)
def test_in_choreography_each_service_reacts_to_the_others_log(
    policies: Policies, event: Message, steps: Sequence[Dispatch]
) -> None:
    assert list(policies.dispatches(event)) == list(steps)


@pytest.mark.parametrize(
    ("policies", "event", "step"),
    [
        (
            CREDIT_OF_SAGAS,
            saga.ReserveCredit(**IDS, total=TOTAL.to_proto()),
            reserve(ORCHESTRATION),
        ),
        (
            CREDIT_OF_SAGAS,
            saga.ReserveCredit(**IDS, total=TOTAL.to_proto(), deadline=timestamp(SOON)),
            reserve(ORCHESTRATION, SOON, (START - datetime(1970, 1, 1, tzinfo=UTC)).days // 7),
        ),
        (CREDIT_OF_SAGAS, saga.ReleaseCredit(**IDS), release(ORCHESTRATION)),
        (order_svc.ORCHESTRATION, saga.ApproveOrder(**IDS), APPROVE),
        (
            order_svc.ORCHESTRATION,
            saga.RejectOrder(**IDS, reason=REJECTION_REASON_UNKNOWN_CUSTOMER),
            on(ORDER, ORDER_ID).do(RejectOrder(REJECTION_REASON_UNKNOWN_CUSTOMER)),
        ),
    ],
)
def test_in_orchestration_each_service_does_as_it_is_told(
    policies: Policies, event: Message, step: Dispatch
) -> None:
    assert list(policies.dispatches(event)) == [step]


OF_AN_ORDER = [
    order_approved(mode=ORCHESTRATION),
    order_rejected(REJECTION_REASON_INSUFFICIENT_CREDIT, mode=ORCHESTRATION),
    order_cancelled(mode=ORCHESTRATION),
    approval_refused(ORDER_STATE_CANCELLED, mode=ORCHESTRATION),
]
OF_CREDIT = [
    credit_reserved(mode=ORCHESTRATION),
    reservation_failed(REJECTION_REASON_INSUFFICIENT_CREDIT, mode=ORCHESTRATION),
    credit_released(mode=ORCHESTRATION),
]


def test_the_orchestrator_begins_a_saga_with_the_order() -> None:
    created = order_created(mode=ORCHESTRATION)
    assert list(OF_ORDERS.dispatches(created)) == [in_saga(Begin(created, START))._replace(assume_empty=True)]


@pytest.mark.parametrize(
    ("policies", "event"), [(OF_ORDERS, e) for e in OF_AN_ORDER] + [(OF_CUSTOMERS, e) for e in OF_CREDIT]
)
def test_the_orchestrator_hears_every_answer(policies: Policies, event: Message) -> None:
    assert list(policies.dispatches(event)) == [in_saga(Reply(event, START))]


@pytest.mark.parametrize("event", [order_created(mode=ORCHESTRATION), *OF_AN_ORDER, *OF_CREDIT])
@pytest.mark.parametrize("policies", [CREDIT_OF_ORDERS, order_svc.CHOREOGRAPHY])
def test_nobody_reacts_by_himself_to_an_orchestrated_order(policies: Policies, event: Message) -> None:
    assert not policies.dispatches(event)


@pytest.mark.parametrize(
    "event", [order_created(), order_approved(), order_cancelled(), credit_reserved(), credit_released()]
)
@pytest.mark.parametrize("policies", [OF_ORDERS, OF_CUSTOMERS])
def test_the_orchestrator_leaves_a_choreographed_order_alone(policies: Policies, event: Message) -> None:
    assert not policies.dispatches(event)


def test_the_consumers_names_are_theirs_for_good() -> None:
    """They are the keys of the checkpoints."""
    tables = [
        CREDIT_OF_ORDERS,
        CREDIT_OF_SAGAS,
        order_svc.CHOREOGRAPHY,
        order_svc.ORCHESTRATION,
        OF_ORDERS,
        OF_CUSTOMERS,
    ]
    assert [policies.consumer for policies in tables] == [
        "customer_svc.orders",
        "customer_svc.sagas",
        "order_svc.customers",
        "order_svc.sagas",
        "saga_orchestrator.orders",
        "saga_orchestrator.customers",
    ]
