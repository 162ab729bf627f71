"""A customer forgets what was settled long ago, and nothing comes back because of it.

The properties' world: orders are created, reserved, cancelled and released over months; commands come twice and weeks
late, as a saga's retries and replayed dead letters do; some replicas are of 0.1.0, which dates nothing and remembers
everything; clocks are off by hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from customer_svc.domain import CUSTOMER, WEEK, Command, Customer, ReleaseCredit, ReserveCredit, week_of
from shop.customers.v1.events_pb2 import CreditReleased, CreditReservationFailed, CreditReserved
from shop.orders.v1.order_pb2 import (
    REJECTION_REASON_DEADLINE_EXCEEDED,
)
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from tests.controls import CUSTOMER_ID, TOTAL, credit_released, customer_created, money, new_id
from tests.controls import reservation_failed as failed
from twinlog import Money
from twinlog.testing import START
from twinlog.testing.internals import StateCodec

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
LATE = REJECTION_REASON_DEADLINE_EXCEEDED
RICH = customer_created(money("1000000"))


def reserve(
    order_id: str, deadline: datetime | None, now: datetime, total: Money = TOTAL, *, dated: bool = True
) -> ReserveCredit:
    week = week_of(now, deadline) if dated else 0
    return ReserveCredit(CUSTOMER_ID, order_id, total, SAGA_MODE_CHOREOGRAPHY, deadline, week)


def release(order_id: str) -> ReleaseCredit:
    return ReleaseCredit(CUSTOMER_ID, order_id, SAGA_MODE_CHOREOGRAPHY)


def done(customer: Customer, *commands: Command) -> Customer:
    for command in commands:
        customer = CUSTOMER.fold(CUSTOMER.decide(customer, command), customer)
    return customer


def weeks_later(customer: Customer, weeks: int, *, dated: bool = True) -> Customer:
    """With an order reserved and released in each of the weeks."""
    for week in range(1, weeks + 1):
        now, id = START + week * WEEK, new_id()
        customer = done(customer, reserve(id, now + DAY, now, dated=dated), release(id))
    return customer


def settled(order_id: str, *, dated: bool = True) -> Customer:
    """An order of the start, reserved and released."""
    asked = reserve(order_id, START + DAY, START, dated=dated)
    return done(CUSTOMER.fold([RICH]), asked, release(order_id))


@pytest.mark.parametrize(("weeks", "known"), [(0, True), (1, True), (2, False), (30, False)])
def test_a_settled_order_is_forgotten_after_two_weeks_and_never_holds_credit_again(
    weeks: int, known: bool
) -> None:
    order_id = new_id()
    customer = weeks_later(settled(order_id), weeks)
    assert customer.held(order_id) == (0 if known else None)
    events = CUSTOMER.decide(customer, reserve(order_id, START + DAY, START + weeks * WEEK))
    assert list(events) == ([] if known else [failed(LATE, order_id=order_id)])
    after = CUSTOMER.fold(events, customer)
    assert (after.reserved, after.held(order_id)) == (0, 0)
    assert not CUSTOMER.decide(after, reserve(order_id, START + DAY, START + weeks * WEEK))


def test_a_release_that_comes_years_late_gives_back_nothing() -> None:
    order_id = new_id()
    customer = weeks_later(settled(order_id), 100)
    events = CUSTOMER.decide(customer, release(order_id))
    assert list(events) == [credit_released(None, order_id=order_id)]
    assert CUSTOMER.fold(events, customer).reserved == 0


def test_what_is_held_and_what_came_before_its_reservation_is_never_forgotten() -> None:
    held, overtaken = new_id(), new_id()
    customer = done(CUSTOMER.fold([RICH]), reserve(held, START + DAY, START), release(overtaken))
    customer = weeks_later(customer, 50)
    assert (customer.held(held), customer.held(overtaken)) == (TOTAL.nanos, 0)
    assert done(customer, release(held)).reserved == 0
    assert not CUSTOMER.decide(customer, reserve(overtaken, START + 50 * WEEK, START + 50 * WEEK))


@pytest.mark.parametrize("off", [-4000 * DAY, -5 * DAY, 5 * DAY, 4000 * DAY])
def test_one_clock_that_is_far_off_has_nothing_forgotten_and_no_sound_order_refused(off: timedelta) -> None:
    """The customers' or the orders': neither dates a reservation by itself."""
    order_id, others = new_id(), (new_id(), new_id(), new_id())
    customer = weeks_later(settled(order_id), 1)
    now = START + WEEK + DAY
    for command in (
        reserve(others[0], now + DAY, now + off),
        reserve(others[1], now + off + DAY, now),
        reserve(others[2], now + DAY, now),
    ):
        [event] = CUSTOMER.decide(customer, command)
        if isinstance(event, CreditReservationFailed):
            assert event.reason == LATE
            assert off < -DAY, "only what has a deadline long ago"
        customer = CUSTOMER.fold([event], customer)
    assert customer.held(order_id) == 0
    assert customer.held(others[2]), "the sound one"


def test_after_both_clocks_were_far_ahead_sound_orders_go_on() -> None:
    ahead = START + 52 * WEEK
    first, second = new_id(), new_id()
    customer = done(CUSTOMER.fold([RICH]), reserve(first, ahead + DAY, ahead))
    assert done(customer, reserve(second, START + DAY, START)).held(second)


def test_an_order_without_a_deadline_is_taken_as_it_comes() -> None:
    """As an orchestrator of 0.1.0 asks for it."""
    customer, order_id = weeks_later(CUSTOMER.fold([RICH]), 9), new_id()
    assert done(customer, reserve(order_id, None, START + 9 * WEEK)).held(order_id)


def test_what_0_1_0_settled_is_forgotten_two_weeks_after_it_is_gone() -> None:
    order_id = new_id()
    customer = weeks_later(settled(order_id, dated=False), 20, dated=False)
    assert customer.held(order_id) == 0
    assert weeks_later(customer, 2).held(order_id) == 0
    assert weeks_later(customer, 3).held(order_id) is None


@pytest.mark.parametrize("refused", [False, True])
def test_a_customer_of_many_years_is_no_larger_than_a_new_one(refused: bool) -> None:
    """Of 10,000 orders, four a day: only those of the last weeks are there."""
    customer, now = CUSTOMER.fold([RICH if not refused else customer_created(money("1"))]), START
    largest = 0
    codec = StateCodec(CUSTOMER)
    for number in range(10_000):
        now, id = START + number * DAY / 4, new_id()
        customer = done(customer, reserve(id, now + HOUR, now))
        customer = customer if refused else done(customer, release(id))
        if number % 100 == 0:
            largest = max(largest, len(codec.encode(customer)))
    assert customer.reserved == 0
    assert len(customer.settled) + len(customer.settled_before) <= 2 * 7 * 4 + 4
    assert largest < 4000
    assert codec.decode(codec.encode(customer)) == customer


# --- properties ---

ORDERS = [new_id() for _ in range(12)]
HOURS = st.integers(0, 24 * 25).map(lambda hours: hours * HOUR)
SKEWS = st.integers(-12, 12).map(lambda hours: hours * HOUR)
STEPS = st.tuples(
    st.sampled_from(["create", "create", "create", "release", "again", "again", "0.1.0"]),
    st.integers(0, len(ORDERS) - 1),
    HOURS,
    SKEWS,
)


class World:
    """A customer as it is, and everything that happened to it."""

    def __init__(self, limit: Money) -> None:
        self.customer = CUSTOMER.fold([customer_created(limit)])
        self.now = START
        self.deadlines: dict[str, datetime] = {}
        self.events: list[Message] = []
        self.over: set[str] = set()
        """Orders that were released or failed: they hold nothing ever after."""
        self.open: dict[str, int] = {}

    def step(self, what: str, number: int, passed: timedelta, skew: timedelta) -> None:
        order_id = ORDERS[number]
        if what in ("create", "0.1.0") and order_id not in self.deadlines:
            self.now += passed / 5
            self.deadlines[order_id] = self.now + min(passed / 20, DAY) - skew
            self._reserve(order_id, skew, dated=what == "create")
        elif what == "0.1.0" and order_id in self.deadlines:
            # It remembers: a repeat comes to nothing.
            self.now += passed
        elif what == "again" and order_id in self.deadlines:
            self.now += passed
            self._reserve(order_id, skew, dated=True)
        elif what == "release":
            self.now += passed / 3
            self._take(CUSTOMER.decide(self.customer, release(order_id)))
            self.over.add(order_id)

    def _reserve(self, order_id: str, skew: timedelta, *, dated: bool) -> None:
        deadline, now = self.deadlines[order_id], self.now + skew
        command = reserve(order_id, deadline, now, dated=dated)
        sound = abs(deadline - self.now) <= DAY
        events = CUSTOMER.decide(self.customer, command)
        assert not (
            sound and any(isinstance(e, CreditReservationFailed) and e.reason == LATE for e in events)
        )
        self._take(events)

    def _take(self, events: Sequence[Message]) -> None:
        for event in events:
            if isinstance(event, CreditReserved):
                assert event.order_id not in self.over, "what is over holds credit again"
                assert event.order_id not in self.open, "held twice"
                self.open[event.order_id] = Money.of(event.amount).nanos
            elif isinstance(event, CreditReleased):
                assert Money.of(event.amount).nanos == self.open.pop(event.order_id, 0)
                self.over.add(event.order_id)
            elif isinstance(event, CreditReservationFailed):
                assert event.order_id not in self.open
                self.over.add(event.order_id)
        self.customer = CUSTOMER.fold(events, self.customer)
        self.events += events
        assert self.customer.reserved == sum(self.open.values()) <= self.customer.limit


@for_all(st.sampled_from([money("15"), money("1000")]), st.lists(STEPS, max_size=40))
def test_whatever_comes_twice_or_late_nothing_that_is_over_holds_credit_again(
    limit: Money, steps: list[tuple[str, int, timedelta, timedelta]]
) -> None:
    world = World(limit)
    for step in steps:
        world.step(*step)


def test_the_property_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of lateness, a forgotten order comes back."""
    monkeypatch.setattr(Customer, "is_late", lambda _customer, _command: False)
    world = World(money("1000"))
    steps: list[tuple[str, int, timedelta, timedelta]] = [
        ("create", 0, DAY, DAY * 0),
        ("release", 0, DAY, DAY * 0),
        *(("create", number, 40 * DAY, DAY * 0) for number in (1, 2, 3)),
    ]
    for step in steps:
        world.step(*step)
    with pytest.raises(AssertionError, match="what is over holds credit again"):
        world.step("again", 0, DAY, DAY * 0)
