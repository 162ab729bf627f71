"""The credit saga, orchestrated: reserve the customer's credit, then approve the order."""

from __future__ import annotations

from datetime import UTC
from functools import lru_cache
from uuid import NAMESPACE_OID, uuid5

from shop.customers.v1.events_pb2 import CreditReleased, CreditReservationFailed, CreditReserved
from shop.orders.v1.events_pb2 import (
    OrderApprovalRefused,
    OrderApproved,
    OrderCancelled,
    OrderCreated,
    OrderRejected,
)
from shop.orders.v1.order_pb2 import RejectionReason
from shop.sagas.v1 import commands_pb2 as commands
from twinlog import Saga, SagaContext, Step, saga_aggregate


def reserve_credit(saga: SagaContext) -> commands.ReserveCredit:
    order = saga.trigger
    return commands.ReserveCredit(
        order_id=order.order_id,
        customer_id=order.customer_id,
        total=order.total,
        deadline=order.deadline if order.HasField("deadline") else None,
    )


def release_credit(saga: SagaContext) -> commands.ReleaseCredit:
    return commands.ReleaseCredit(order_id=saga.trigger.order_id, customer_id=saga.trigger.customer_id)


def approve_order(saga: SagaContext) -> commands.ApproveOrder:
    return commands.ApproveOrder(order_id=saga.trigger.order_id, customer_id=saga.trigger.customer_id)


def reject_order(saga: SagaContext) -> commands.RejectOrder:
    reason = RejectionReason.REJECTION_REASON_DEADLINE_EXCEEDED
    if saga.aborted:
        reason = RejectionReason.REJECTION_REASON_ABORTED
    elif isinstance(saga.refusal, CreditReservationFailed):
        reason = saga.refusal.reason
    return commands.RejectOrder(
        order_id=saga.trigger.order_id,
        customer_id=saga.trigger.customer_id,
        reason=reason,
    )


def reason_of(event: CreditReservationFailed | OrderRejected) -> str:
    return name_of(event.reason).removeprefix("REJECTION_REASON_")


def name_of(reason: RejectionReason.ValueType) -> str:
    """The name of a reason; its number where only a newer version of another service knows it."""
    value = RejectionReason.DESCRIPTOR.values_by_number.get(reason)
    return value.name if value else str(reason)


CREDIT_SAGA = Saga(
    "credit",
    version=1,
    starts_with=OrderCreated,
    steps=[
        Step(
            "reserve credit",
            send=reserve_credit,
            done=CreditReserved,
            refused=CreditReservationFailed,
            why=reason_of,
            undo=release_credit,
            undone=CreditReleased,
            deadline=lambda order: order.deadline.ToDatetime(UTC),
        ),
        Step("approve order", send=approve_order, done=OrderApproved, refused=OrderApprovalRefused),
    ],
    on_compensated=Step("reject order", send=reject_order, done=OrderRejected),
    interrupted_by={
        OrderCancelled: lambda _cancelled: "CANCELLED",
        OrderRejected: reason_of,
    },
    partition_key=lambda order: str(order.customer_id),
)

VERSIONS = {saga.version: saga for saga in (CREDIT_SAGA,)}
"""By version. A changed table is added under the next number: instances keep to the one they started with."""

CREDIT_SAGAS = saga_aggregate(*VERSIONS.values())
"""The aggregate of the saga's instances."""


_HALF = len("00000000-0000-0000-")


@lru_cache(maxsize=10_000)
def saga_id(order_id: str) -> str:
    """The id of an order's saga: a UUID derived from the order's, and near to it in an index.

    The first half is the order's, which is a time where the server made the id; the second half is a hash.
    """
    hashed = uuid5(NAMESPACE_OID, f"credit saga of {order_id}")
    return order_id[:_HALF] + str(hashed)[_HALF:]
