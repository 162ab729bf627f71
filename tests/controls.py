"""Example messages of the shop and small builders of them: the one place that tests take them from.

Everything is about one order of one customer, 12.34 EUR of 15.00, unless a test says otherwise.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID, uuid4

from google.protobuf.message import Message
from google.type.money_pb2 import Money as MoneyMessage

from shop.customers.v1.events_pb2 import (
    CreditLimitChanged,
    CreditReleased,
    CreditReservationFailed,
    CreditReserved,
    CustomerCreated,
)
from shop.orders.v1.events_pb2 import (
    OrderApprovalRefused,
    OrderApproved,
    OrderCancelled,
    OrderCreated,
    OrderRejected,
)
from shop.orders.v1.order_pb2 import OrderState, RejectionReason
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION, SagaMode
from twinlog import Metadata, Money, Recorded, StreamId, timestamp
from twinlog.testing import START
from twinlog.testing.internals import NANOS_PER_UNIT, routing_key_of

ORDER_ID = "0190a000-0000-7000-8000-00000000000a"
CUSTOMER_ID = "0190a000-0000-7000-8000-00000000000c"
TOTAL = Money(12_340_000_000, "EUR")
LIMIT = Money(15_000_000_000, "EUR")
DEADLINE = START + timedelta(seconds=30)
MODES = (SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION)

Mode: TypeAlias = "SagaMode.ValueType"


def money(amount: str, currency: str = "EUR") -> Money:
    """``money("12.34")``"""
    return Money(int(Decimal(amount) * NANOS_PER_UNIT), currency)


def wire(amount: str, currency: str = "EUR") -> MoneyMessage:
    """The same, as clients send it."""
    return money(amount, currency).to_proto()


def new_id() -> str:
    """An id that nobody has used."""
    return str(uuid4())


def _ids(mode: Mode, order_id: str, customer_id: str) -> dict[str, Any]:
    return {"order_id": order_id, "customer_id": customer_id, "saga_mode": mode}


def order_created(
    total: Money = TOTAL,
    *,
    mode: Mode = SAGA_MODE_CHOREOGRAPHY,
    order_id: str = ORDER_ID,
    customer_id: str = CUSTOMER_ID,
    deadline: datetime = DEADLINE,
) -> OrderCreated:
    ids = _ids(mode, order_id, customer_id)
    return OrderCreated(**ids, total=total.to_proto(), deadline=timestamp(deadline))


def order_approved(
    *, mode: Mode = SAGA_MODE_CHOREOGRAPHY, order_id: str = ORDER_ID, customer_id: str = CUSTOMER_ID
) -> OrderApproved:
    return OrderApproved(**_ids(mode, order_id, customer_id))


def order_rejected(
    reason: RejectionReason.ValueType,
    *,
    mode: Mode = SAGA_MODE_CHOREOGRAPHY,
    order_id: str = ORDER_ID,
    customer_id: str = CUSTOMER_ID,
) -> OrderRejected:
    return OrderRejected(**_ids(mode, order_id, customer_id), reason=reason)


def order_cancelled(
    *, mode: Mode = SAGA_MODE_CHOREOGRAPHY, order_id: str = ORDER_ID, customer_id: str = CUSTOMER_ID
) -> OrderCancelled:
    return OrderCancelled(**_ids(mode, order_id, customer_id))


def approval_refused(
    state: OrderState.ValueType,
    *,
    mode: Mode = SAGA_MODE_CHOREOGRAPHY,
    order_id: str = ORDER_ID,
    customer_id: str = CUSTOMER_ID,
) -> OrderApprovalRefused:
    return OrderApprovalRefused(**_ids(mode, order_id, customer_id), state=state)


def customer_created(
    limit: Money = LIMIT, *, name: str = "Ada", customer_id: str = CUSTOMER_ID
) -> CustomerCreated:
    return CustomerCreated(customer_id=customer_id, name=name, credit_limit=limit.to_proto())


def limit_changed(limit: Money, *, customer_id: str = CUSTOMER_ID) -> CreditLimitChanged:
    return CreditLimitChanged(customer_id=customer_id, credit_limit=limit.to_proto())


def credit_reserved(
    amount: Money = TOTAL,
    *,
    mode: Mode = SAGA_MODE_CHOREOGRAPHY,
    order_id: str = ORDER_ID,
    customer_id: str = CUSTOMER_ID,
) -> CreditReserved:
    return CreditReserved(**_ids(mode, order_id, customer_id), amount=amount.to_proto())


def reservation_failed(
    reason: RejectionReason.ValueType,
    *,
    mode: Mode = SAGA_MODE_CHOREOGRAPHY,
    order_id: str = ORDER_ID,
    customer_id: str = CUSTOMER_ID,
) -> CreditReservationFailed:
    return CreditReservationFailed(**_ids(mode, order_id, customer_id), reason=reason)


def credit_released(
    amount: Money | None = TOTAL,
    *,
    mode: Mode = SAGA_MODE_CHOREOGRAPHY,
    order_id: str = ORDER_ID,
    customer_id: str = CUSTOMER_ID,
) -> CreditReleased:
    """``amount`` None: the release came before the reservation, and gives back nothing."""
    given_back = amount.to_proto() if amount else MoneyMessage()
    return CreditReleased(**_ids(mode, order_id, customer_id), amount=given_back)


def recorded(
    message: Message,
    log: str,
    position: int,
    stream: StreamId,
    *,
    version: int = 1,
    after: timedelta = timedelta(),
    cause: str = "",
    actor: str = "",
) -> Recorded:
    """The event as a log holds it, recorded ``after`` the start of time."""
    return Recorded(
        log,
        position,
        stream,
        version,
        UUID(int=position),
        message.DESCRIPTOR.full_name,
        message.SerializeToString(deterministic=True),
        Metadata("correlation", cause, "", actor),
        CUSTOMER_ID,
        routing_key_of(message),
        START + after,
    )
