"""Customers and their credit as queries see them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from google.protobuf.message import Message

from shop.customers.v1.events_pb2 import (
    CreditLimitChanged,
    CreditReleased,
    CreditReserved,
    CustomerCreated,
    CustomerErased,
)
from twinlog import Money, Recorded, View

ERASED = "erased"
"""The name of a customer who is erased."""


class CustomerRow(NamedTuple):
    """One customer, the name sealed: queries open it.

    Asking credit of one who does not exist makes a row, too, which no query shows: its ``created_position`` is 0.
    """

    customer_id: str
    name: str
    currency: str
    limit_nanos: int
    reserved_nanos: int
    created_position: int
    created_at: datetime
    updated_at: datetime


def evolve(row: CustomerRow | None, event: Recorded, message: Any) -> CustomerRow:
    now = event.recorded_at
    row = row._replace(updated_at=now) if row else CustomerRow(event.stream.id, "", "", 0, 0, 0, now, now)
    match message:
        case CustomerCreated():
            limit = Money.of(message.credit_limit)
            return row._replace(
                name=message.name,
                currency=limit.currency,
                limit_nanos=limit.nanos,
                created_position=event.position,
                created_at=now,
            )
        case CustomerErased():
            return row._replace(name=ERASED)
        case CreditLimitChanged():
            return row._replace(limit_nanos=Money.of(message.credit_limit).nanos)
        case CreditReserved():
            return row._replace(reserved_nanos=row.reserved_nanos + Money.of(message.amount).nanos)
        case CreditReleased():
            return row._replace(reserved_nanos=row.reserved_nanos - Money.of(message.amount).nanos)
    return row


def key(event: Recorded, _message: Any) -> str | None:
    return event.stream.id if event.stream.type == "customer" else None


CUSTOMERS = View("customers", key, evolve, events=[Message])
