"""Customers and their credit: available = limit − Σ open reservations; reserve iff available ≥ total."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from google.type.money_pb2 import Money as MoneyMessage

from shop.customers.v1.events_pb2 import (
    CreditLimitChanged,
    CreditReleased,
    CreditReservationFailed,
    CreditReserved,
    CustomerCreated,
    CustomerErased,
)
from shop.orders.v1.order_pb2 import (
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_DEADLINE_EXCEEDED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
    RejectionReason,
)
from shop.orders.v1.saga_mode_pb2 import SagaMode
from twinlog import Aggregate, AlreadyExists, Events, FailedPrecondition, Money, NotFound, UuidMap

# --- weeks ---

# Nothing may be held for an order whose reservation has failed or was released, however late a command comes. So a
# customer remembers such orders, and forgets them after two to three weeks: those whose deadline is that long ago are
# refused by it alone.

WEEK = timedelta(days=7)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEAR = timedelta(days=2)
"""How far the deadline of a new order is away at most: a day, and what clocks are off."""
_AFTER = WEEK / 2


def week_of(now: datetime, deadline: datetime | None) -> int:
    """The week of a reservation, in weeks since 1970; 0 unless the order's deadline is near, as its clock sees it.

    So one clock that is far off, the customers' or the orders', has nothing forgotten.
    """
    if deadline is None or abs(deadline - now) > _NEAR:
        return 0
    return (now - _EPOCH) // WEEK


# --- state ---


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer; amounts are nanos of the one currency."""

    exists: bool = False
    erased: bool = False
    customer_id: str = ""
    currency: str = ""
    limit: int = 0
    reserved: int = 0
    holds: UuidMap = field(default_factory=UuidMap)
    """Order id → what is held for it. 0: its release came before its reservation; nothing will ever be held for it."""
    week: int = 0
    """Of the last reservation that is dated, in weeks since 1970."""
    dated: bool = False
    """Whether the last reservation was; after one that was not, it takes a week more until anything is forgotten."""
    settled: UuidMap = field(default_factory=UuidMap)
    """The orders whose reservation failed or was released in ``week``: nothing may be held for them any more."""
    settled_before: UuidMap = field(default_factory=UuidMap)
    """The same of the week before. Older ones are forgotten; :meth:`is_late` is what keeps them from coming back."""

    def held(self, order_id: str) -> int | None:
        """What is held for an order; 0 where it is settled, None where it is unknown or forgotten."""
        held = self.holds.get(order_id)
        if held is not None:
            return held
        settled = (self.settled and order_id in self.settled) or (
            self.settled_before and order_id in self.settled_before
        )
        return 0 if settled else None

    def is_late(self, command: ReserveCredit) -> bool:
        """Whether the order may be one of those that are forgotten.

        One that is was settled before last week, and its deadline was two days away then, at most. One whose
        reservation is dated has its deadline within two days of now, so nothing sound is ever late.
        """
        if command.week or command.deadline is None:
            return False
        return command.deadline < _EPOCH + (self.week - 1) * WEEK + _AFTER

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
    deadline: datetime | None = None
    """The order's; None where it is not known."""
    week: int = 0
    """See :func:`week_of`."""


@dataclass(frozen=True, slots=True)
class ReleaseCredit:
    """Gives back what is reserved for the order; from then on, nothing can be reserved for it."""

    customer_id: str
    order_id: str
    saga_mode: SagaMode.ValueType


@dataclass(frozen=True, slots=True)
class EraseCustomer:
    """Records that the key of the customer's personal fields is destroyed."""


Command = CreateCustomer | ChangeCreditLimit | ReserveCredit | ReleaseCredit | EraseCustomer


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
        case CustomerErased():
            return replace(customer, erased=True)
        case CreditReserved():
            customer = _in_week(customer, event.week)
            amount = Money.of(event.amount).nanos
            holds = customer.holds.insert(event.order_id, amount)
            return replace(customer, reserved=customer.reserved + amount, holds=holds)
        case CreditReleased():
            return _released(customer, event.customer_id, event.order_id)
        case CreditReservationFailed():
            return _settled(
                _in_week(replace(customer, customer_id=event.customer_id), event.week), event.order_id
            )
    return customer


def _released(customer: Customer, customer_id: str, order_id: str) -> Customer:
    held = customer.holds.get(order_id)
    if not held:
        return replace(customer, customer_id=customer_id, holds=customer.holds.insert(order_id, 0))
    return replace(  # all at once: a copy costs as much as the rest of it
        customer,
        customer_id=customer_id,
        reserved=customer.reserved - held,
        holds=customer.holds.remove(order_id),
        settled=customer.settled.insert(order_id, 0),
    )


def _settled(customer: Customer, order_id: str) -> Customer:
    return replace(customer, settled=customer.settled.insert(order_id, 0))


def _in_week(customer: Customer, week: int) -> Customer:
    """The customer at a reservation of that week, where those settled before the last week are forgotten.

    A reservation without a date may be of any later week. What is settled by then counts as settled in the week of the
    next one that has a date.
    """
    if not week or not customer.dated:
        return replace(customer, week=max(customer.week, week), dated=bool(week))
    if week <= customer.week:
        return customer
    before = customer.settled if week == customer.week + 1 else UuidMap()
    return replace(customer, week=week, settled=UuidMap(), settled_before=before)


# --- decide ---


def decide(customer: Customer, command: Command) -> Events:
    match command:
        case CreateCustomer(customer_id, name, limit):
            if customer.exists:
                raise CustomerExists(customer_id=customer_id)
            return [CustomerCreated(customer_id=customer_id, name=name, credit_limit=limit.to_proto())]
        case ChangeCreditLimit(limit):
            return _change_limit(customer, limit)
        case EraseCustomer():
            return _erase(customer)
        case ReserveCredit() | ReleaseCredit():
            return _reserve_or_release(customer, command)


def _reserve_or_release(customer: Customer, command: ReserveCredit | ReleaseCredit) -> Events:
    held = customer.held(command.order_id)
    if held == 0:
        return []  # settled
    if isinstance(command, ReserveCredit):
        return [_reserved(customer, command)] if held is None else []
    amount = Money(held, customer.currency).to_proto() if held else MoneyMessage()
    return [
        CreditReleased(
            customer_id=command.customer_id,
            order_id=command.order_id,
            amount=amount,
            saga_mode=command.saga_mode,
        )
    ]


def _change_limit(customer: Customer, limit: Money) -> Events:
    if not customer.exists:
        raise CustomerNotFound
    if limit.currency != customer.currency:
        raise CurrencyMismatch(currency=customer.currency, given=limit.currency)
    if limit.nanos == customer.limit:
        return []
    return [CreditLimitChanged(customer_id=customer.customer_id, credit_limit=limit.to_proto())]


def _erase(customer: Customer) -> Events:
    if not customer.exists:
        raise CustomerNotFound
    return [] if customer.erased else [CustomerErased(customer_id=customer.customer_id)]


def _reserved(customer: Customer, command: ReserveCredit) -> CreditReserved | CreditReservationFailed:
    ids: dict[str, Any] = {
        "customer_id": command.customer_id,
        "order_id": command.order_id,
        "saga_mode": command.saga_mode,
        "week": command.week,
    }
    reason = _refusal(customer, command)
    if reason is not None:
        return CreditReservationFailed(**ids, reason=reason)
    return CreditReserved(**ids, amount=command.total.to_proto())


def _refusal(customer: Customer, command: ReserveCredit) -> RejectionReason.ValueType | None:
    total = command.total
    if customer.is_late(command):
        return REJECTION_REASON_DEADLINE_EXCEEDED
    if not customer.exists:
        return REJECTION_REASON_UNKNOWN_CUSTOMER
    if total.currency != customer.currency:
        return REJECTION_REASON_CURRENCY_MISMATCH
    if total.nanos > customer.available:
        return REJECTION_REASON_INSUFFICIENT_CREDIT
    return None


CUSTOMER: Aggregate[Customer, Command] = Aggregate(
    "customer",
    Customer(),
    decide,
    evolve,
    partition_key=lambda customer: customer.customer_id,
    keep_every=500,  # a customer's events are many, and each costs more to fold than its share of a state to read
    keeps_personal=False,
)
