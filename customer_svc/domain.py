"""Customers and their credit: available = limit − Σ open reservations; reserve iff available ≥ total."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message
from google.type.money_pb2 import Money as MoneyMessage

from shop.customers.v1.events_pb2 import (
    CreditLimitChanged,
    CreditReleased,
    CreditReservationFailed,
    CreditReserved,
    CustomerCreated,
)
from shop.orders.v1.order_pb2 import (
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
    RejectionReason,
)
from shop.orders.v1.saga_mode_pb2 import SagaMode
from twinlog import Aggregate, AlreadyExists, Events, FailedPrecondition, Money, NotFound, UuidMap

# --- state ---


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer; amounts are nanos of the one currency."""

    exists: bool = False
    customer_id: str = ""
    currency: str = ""
    limit: int = 0
    reserved: int = 0
    holds: UuidMap = field(default_factory=UuidMap)
    """Order id → what is held for it. 0: settled; nothing may be held for that order any more."""

    @property
    def available(self) -> int:
        """Negative after the limit was lowered below what is reserved."""
        return self.limit - self.reserved


# --- commands ---


@dataclass(frozen=True, slots=True)
class CreateCustomer:
    customer_id: str
    name: str
    credit_limit: Money


@dataclass(frozen=True, slots=True)
class ChangeCreditLimit:
    credit_limit: Money


@dataclass(frozen=True, slots=True)
class ReserveCredit:
    customer_id: str
    order_id: str
    total: Money
    saga_mode: SagaMode.ValueType


@dataclass(frozen=True, slots=True)
class ReleaseCredit:
    """Gives back what is reserved for the order; from then on, nothing can be reserved for it."""

    customer_id: str
    order_id: str
    saga_mode: SagaMode.ValueType


Command = CreateCustomer | ChangeCreditLimit | ReserveCredit | ReleaseCredit


# --- errors ---


class CustomerExists(AlreadyExists):
    """There is a customer {customer_id} already; leave customer_id out, or use a new UUID."""

    reason = "CUSTOMER_EXISTS"


class CustomerNotFound(NotFound):
    """There is no such customer."""

    reason = "CUSTOMER_NOT_FOUND"


class CurrencyMismatch(FailedPrecondition):
    """The customer's currency is {currency}, not {given}; it stays as it is for good."""

    reason = "CURRENCY_MISMATCH"


# --- evolve ---


def evolve(customer: Customer, event: Message) -> Customer:
    match event:
        case CustomerCreated():
            limit = Money.of(event.credit_limit)
            return replace(
                customer,
                exists=True,
                customer_id=event.customer_id,
                currency=limit.currency,
                limit=limit.nanos,
            )
        case CreditLimitChanged():
            return replace(customer, limit=Money.of(event.credit_limit).nanos)
        case CreditReserved():
            amount = Money.of(event.amount).nanos
            holds = customer.holds.insert(event.order_id, amount)
            return replace(customer, reserved=customer.reserved + amount, holds=holds)
        case CreditReleased():
            reserved = customer.reserved - customer.holds.get(event.order_id, 0)
            holds = customer.holds.insert(event.order_id, 0)
            return replace(customer, customer_id=event.customer_id, reserved=reserved, holds=holds)
        case CreditReservationFailed():
            holds = customer.holds.insert(event.order_id, 0)
            return replace(customer, customer_id=event.customer_id, holds=holds)
    return customer


# --- decide ---


def decide(customer: Customer, command: Command) -> Events:
    match command:
        case CreateCustomer(customer_id, name, limit):
            if customer.exists:
                raise CustomerExists(customer_id=customer_id)
            return [CustomerCreated(customer_id=customer_id, name=name, credit_limit=limit.to_proto())]
        case ChangeCreditLimit(limit):
            return _change(customer, limit)
        case ReserveCredit(order_id=order_id) | ReleaseCredit(order_id=order_id) if (
            customer.holds.get(order_id) == 0
        ):
            return []  # settled
        case ReserveCredit():
            return _reserve(customer, command)
        case ReleaseCredit(customer_id, order_id, saga_mode):
            held = customer.holds.get(order_id, 0)
            amount = Money(held, customer.currency).to_proto() if held else MoneyMessage()
            return [
                CreditReleased(customer_id=customer_id, order_id=order_id, amount=amount, saga_mode=saga_mode)
            ]


def _change(customer: Customer, limit: Money) -> Events:
    if not customer.exists:
        raise CustomerNotFound
    if limit.currency != customer.currency:
        raise CurrencyMismatch(currency=customer.currency, given=limit.currency)
    if limit.nanos == customer.limit:
        return []
    return [CreditLimitChanged(customer_id=customer.customer_id, credit_limit=limit.to_proto())]


def _reserve(customer: Customer, command: ReserveCredit) -> Events:
    if command.order_id in customer.holds:
        return []
    ids: dict[str, Any] = {
        "customer_id": command.customer_id,
        "order_id": command.order_id,
        "saga_mode": command.saga_mode,
    }
    reason = _refusal(customer, command.total)
    if reason is not None:
        return [CreditReservationFailed(**ids, reason=reason)]
    return [CreditReserved(**ids, amount=command.total.to_proto())]


def _refusal(customer: Customer, total: Money) -> RejectionReason.ValueType | None:
    if not customer.exists:
        return REJECTION_REASON_UNKNOWN_CUSTOMER
    if total.currency != customer.currency:
        return REJECTION_REASON_CURRENCY_MISMATCH
    if total.nanos > customer.available:
        return REJECTION_REASON_INSUFFICIENT_CREDIT
    return None


CUSTOMER: Aggregate[Customer, Command] = Aggregate(
    "customer", Customer(), decide, evolve, partition_key=lambda customer: customer.customer_id
)
