"""Customers and their credit as given / when / then on values, and as properties of any interleaving."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from customer_svc.domain import (
    CUSTOMER,
    ChangeCreditLimit,
    Command,
    CreateCustomer,
    CurrencyMismatch,
    Customer,
    CustomerExists,
    CustomerNotFound,
    EraseCustomer,
    ReleaseCredit,
    ReserveCredit,
)
from shop.customers.v1.events_pb2 import CreditReservationFailed, CreditReserved, CustomerErased
from shop.orders.v1.order_pb2 import (
    REJECTION_REASON_CURRENCY_MISMATCH,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
    REJECTION_REASON_UNKNOWN_CUSTOMER,
    RejectionReason,
)
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from tests.controls import (
    CUSTOMER_ID,
    LIMIT,
    MODES,
    ORDER_ID,
    TOTAL,
    Mode,
    credit_released,
    credit_reserved,
    customer_created,
    limit_changed,
    money,
    new_id,
    reservation_failed,
)
from twinlog import Money
from twinlog.testing import given
from twinlog.testing.internals import StateCodec

OTHER_ORDER = new_id()
CREATED = [customer_created()]
RESERVED = [*CREATED, credit_reserved()]
RELEASED = [*RESERVED, credit_released()]


def reserve(
    total: Money = TOTAL, mode: Mode = SAGA_MODE_CHOREOGRAPHY, order_id: str = ORDER_ID
) -> ReserveCredit:
    return ReserveCredit(CUSTOMER_ID, order_id, total, mode)


def release(mode: Mode = SAGA_MODE_CHOREOGRAPHY, order_id: str = ORDER_ID) -> ReleaseCredit:
    return ReleaseCredit(CUSTOMER_ID, order_id, mode)


def test_is_created_once_with_all_credit_available() -> None:
    created = given(CUSTOMER).when(CreateCustomer(CUSTOMER_ID, "Ada", LIMIT)).then(customer_created())
    assert (created.state.limit, created.state.reserved, created.state.available) == (
        LIMIT.nanos,
        0,
        LIMIT.nanos,
    )
    again = created.when(CreateCustomer(CUSTOMER_ID, "Ada", LIMIT))
    again.then_refused(CustomerExists, customer_id=CUSTOMER_ID)


@pytest.mark.parametrize("mode", MODES)
def test_reserves_what_an_order_needs(mode: Mode) -> None:
    reserved = given(CUSTOMER, *CREATED).when(reserve(mode=mode)).then(credit_reserved(mode=mode))
    assert reserved.state.available == LIMIT.nanos - TOTAL.nanos


def test_equal_is_enough() -> None:
    reserved = given(CUSTOMER, *CREATED).when(reserve(LIMIT)).then(credit_reserved(LIMIT))
    assert reserved.state.available == 0


def test_one_nano_too_much_is_too_much() -> None:
    more = Money(LIMIT.nanos + 1, LIMIT.currency)
    failed = reservation_failed(REJECTION_REASON_INSUFFICIENT_CREDIT)
    given(CUSTOMER, *CREATED).when(reserve(more)).then(failed)


def test_what_other_orders_hold_is_not_available() -> None:
    refused = reservation_failed(REJECTION_REASON_INSUFFICIENT_CREDIT, order_id=OTHER_ORDER)
    given(CUSTOMER, *RESERVED).when(reserve(order_id=OTHER_ORDER)).then(refused)


@pytest.mark.parametrize(
    ("past", "total", "reason"),
    [
        ([], TOTAL, REJECTION_REASON_UNKNOWN_CUSTOMER),
        (CREATED, money("1", "USD"), REJECTION_REASON_CURRENCY_MISMATCH),
        (CREATED, money("1000", "USD"), REJECTION_REASON_CURRENCY_MISMATCH),
        (CREATED, money("1000"), REJECTION_REASON_INSUFFICIENT_CREDIT),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_refusal_is_an_event_with_its_reason_and_is_final(
    past: Sequence[Message], total: Money, reason: RejectionReason.ValueType, mode: Mode
) -> None:
    refused = given(CUSTOMER, *past).when(reserve(total, mode)).then(reservation_failed(reason, mode=mode))
    refused.when(reserve(Money(1, "EUR"), mode)).then_nothing()
    refused.when(release(mode)).then_nothing()


def test_an_order_holds_its_credit_once() -> None:
    given(CUSTOMER, *RESERVED).when(reserve(money("1"))).then_nothing()


@pytest.mark.parametrize("mode", MODES)
def test_releases_what_the_order_holds(mode: Mode) -> None:
    held = given(CUSTOMER, *CREATED, credit_reserved(mode=mode))
    released = held.when(release(mode)).then(credit_released(mode=mode))
    assert released.state.available == LIMIT.nanos


def test_releases_nothing_of_other_orders() -> None:
    held = given(CUSTOMER, *RESERVED, credit_reserved(money("1"), order_id=OTHER_ORDER))
    released = held.when(release()).then(credit_released())
    assert released.state.reserved == money("1").nanos


def test_released_credit_is_never_held_again_for_the_same_order() -> None:
    given(CUSTOMER, *RELEASED).when(reserve()).then_nothing()
    given(CUSTOMER, *RELEASED).when(release()).then_nothing()


@pytest.mark.parametrize("past", [[], CREATED])
def test_a_release_that_overtakes_its_reservation_leaves_a_tombstone(past: Sequence[Message]) -> None:
    tombstone = given(CUSTOMER, *past).when(release()).then(credit_released(None))
    late = tombstone.when(reserve()).then_nothing()
    assert late.state.reserved == 0


def test_a_tombstone_stays_when_the_customer_is_created_after_it() -> None:
    given(CUSTOMER, credit_released(None), *CREATED).when(reserve()).then_nothing()


@pytest.mark.parametrize("limit", [money("100"), money("12.34"), money("0")])
def test_the_limit_may_be_raised_and_lowered_even_below_what_is_held(limit: Money) -> None:
    changed = given(CUSTOMER, *RESERVED).when(ChangeCreditLimit(limit)).then(limit_changed(limit))
    assert changed.state.reserved == TOTAL.nanos
    assert changed.state.available == limit.nanos - TOTAL.nanos


def test_below_what_is_held_nothing_more_is_reserved() -> None:
    lowered = given(CUSTOMER, *RESERVED, limit_changed(money("1")))
    refused = reservation_failed(REJECTION_REASON_INSUFFICIENT_CREDIT, order_id=OTHER_ORDER)
    lowered.when(reserve(Money(1, "EUR"), order_id=OTHER_ORDER)).then(refused)


def test_the_same_limit_again_changes_nothing() -> None:
    given(CUSTOMER, *CREATED).when(ChangeCreditLimit(LIMIT)).then_nothing()


def test_the_currency_is_for_good() -> None:
    dollars = given(CUSTOMER, *CREATED).when(ChangeCreditLimit(money("15", "USD")))
    dollars.then_refused(CurrencyMismatch, currency="EUR", given="USD")


@pytest.mark.parametrize("past", [[], [reservation_failed(REJECTION_REASON_UNKNOWN_CUSTOMER)]])
def test_the_limit_of_an_unknown_customer_is_not_found(past: Sequence[Message]) -> None:
    given(CUSTOMER, *past).when(ChangeCreditLimit(LIMIT)).then_refused(CustomerNotFound)


def test_one_that_was_only_asked_for_can_still_be_created() -> None:
    asked = given(CUSTOMER, reservation_failed(REJECTION_REASON_UNKNOWN_CUSTOMER))
    asked.when(CreateCustomer(CUSTOMER_ID, "Ada", LIMIT)).then(customer_created())


def test_all_events_of_a_customer_go_by_its_id() -> None:
    asked = [reservation_failed(REJECTION_REASON_UNKNOWN_CUSTOMER)]
    pasts: list[list[Message]] = [[*CREATED], [*RESERVED], [*RELEASED], [*asked], [credit_released(None)]]
    assert {CUSTOMER.partition_key(CUSTOMER.fold(past)) for past in pasts} == {CUSTOMER_ID}


AMOUNTS = st.integers(0, 12).map(lambda units: money(str(units)))
ORDERS = st.sampled_from([str(UUID(int=number)) for number in range(4)])
STEPS: st.SearchStrategy[Command] = st.one_of(
    st.builds(lambda amount, order: reserve(amount, order_id=order), AMOUNTS, ORDERS),
    st.builds(lambda order: release(order_id=order), ORDERS),
    st.builds(ChangeCreditLimit, AMOUNTS),
)


def held(customer: Customer) -> int:
    return sum(amount for _, amount in customer.holds.items())


@for_all(AMOUNTS, st.lists(STEPS, max_size=25))
def test_in_any_interleaving_the_books_balance_and_nothing_unavailable_is_reserved(
    limit: Money, steps: list[Command]
) -> None:
    customer = CUSTOMER.fold([customer_created(limit)])
    released: set[str] = set()
    for step in steps:
        events = CUSTOMER.decide(customer, step)
        after = CUSTOMER.fold(events, customer)
        assert not CUSTOMER.decide(after, step), "a repeat decides nothing"
        assert after.reserved == held(after) >= 0
        for event in events:
            if isinstance(event, CreditReserved):
                assert Money.of(event.amount).nanos <= customer.available
                assert event.order_id not in released
            if isinstance(event, CreditReservationFailed):
                assert isinstance(step, ReserveCredit)
                assert step.total.nanos > customer.available
        if isinstance(step, ReleaseCredit):
            released.add(step.order_id)
            assert after.held(step.order_id) == 0
        customer = after


@for_all(st.lists(st.tuples(AMOUNTS, ORDERS), max_size=8))
def test_a_reservation_takes_the_credit_for_good_or_until_its_release(wants: list[tuple[Money, str]]) -> None:
    customer = CUSTOMER.fold([customer_created(money("1000"))])
    for total, order in wants:
        customer = CUSTOMER.fold(CUSTOMER.decide(customer, reserve(total, order_id=order)), customer)
    first = {order: total for total, order in reversed(wants)}
    assert customer.reserved == sum(total.nanos for total in first.values())
    for order in first:
        customer = CUSTOMER.fold(CUSTOMER.decide(customer, release(order_id=order)), customer)
    assert customer.reserved == 0


@pytest.mark.parametrize("past", [[], CREATED, RESERVED, RELEASED])
def test_its_state_survives_a_snapshot(past: Sequence[Message]) -> None:
    codec, customer = StateCodec(CUSTOMER), CUSTOMER.fold(past)
    assert codec.decode(codec.encode(customer)) == customer


def test_a_customer_is_erased_once_and_keeps_the_credit() -> None:
    erased = CustomerErased(customer_id=CUSTOMER_ID)
    given(CUSTOMER, *RESERVED).when(EraseCustomer()).then(erased)
    given(CUSTOMER, *RESERVED, erased).when(EraseCustomer()).then_nothing()
    given(CUSTOMER, *CREATED, erased).when(reserve()).then(credit_reserved())
    given(CUSTOMER).when(EraseCustomer()).then_refused(CustomerNotFound)


def test_a_customers_state_keeps_no_name() -> None:
    """So its snapshots need no sealing."""
    named = CUSTOMER.fold([customer_created(name="Zephyrine")])
    assert b"Zephyrine" not in StateCodec(CUSTOMER).encode(named)
    assert not CUSTOMER.keeps_personal
