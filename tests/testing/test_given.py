"""given / when / then: what holds passes, and what does not is shown field by field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from customer_svc.domain import CUSTOMER, ReleaseCredit
from order_svc.domain import ORDER, ApproveOrder
from order_svc.policies import CHOREOGRAPHY, ORCHESTRATION
from saga_orchestrator.credit_saga import CREDIT_SAGA
from shop.orders.v1.order_pb2 import ORDER_STATE_CANCELLED
from shop.sagas.v1 import commands_pb2 as commands
from tests import controls
from tests.hotel import messages as hotel
from tests.hotel.rooms import ROOMS, RoomRow
from tests.hotel.trips import TRIP
from twinlog import Aggregate, on
from twinlog.testing import given

BOOKED = hotel.BookingRequested(booking_id="b", room_id="101", guest="Ada")
ROOM = {"room_id": "101", "booking_id": "b"}


class TestAggregate:
    def test_what_was_decided_is_shown_beside_what_was_expected(self) -> None:
        decision = given(ORDER, controls.order_created()).when(ApproveOrder())
        decision.then(controls.order_approved())
        with pytest.raises(AssertionError) as failed:
            decision.then(controls.order_approved(customer_id="another"))
        assert "it decided (- expected, + came):" in str(failed.value)
        assert '-     customer_id: "another"' in str(failed.value)
        assert f'+     customer_id: "{controls.CUSTOMER_ID}"' in str(failed.value)
        assert f'      order_id: "{controls.ORDER_ID}"' in str(failed.value)


class TestPolicies:
    def test_the_commands_of_an_event(self) -> None:
        approve = on(ORDER, controls.ORDER_ID).do(ApproveOrder())
        given(CHOREOGRAPHY).when(controls.credit_reserved()).commands(approve)
        given(CHOREOGRAPHY).when(controls.credit_released()).nothing()

    def test_tables_are_asked_together_and_events_in_order(self) -> None:
        approve = on(ORDER, controls.ORDER_ID).do(ApproveOrder())
        command = commands.ApproveOrder(order_id=controls.ORDER_ID, customer_id=controls.CUSTOMER_ID)
        both = given([CHOREOGRAPHY, ORCHESTRATION], controls.credit_reserved())
        both.when(controls.credit_reserved(), command).commands(approve, approve)

    def test_another_command_is_shown(self) -> None:
        called_for = given(CHOREOGRAPHY).when(controls.credit_reserved())
        with pytest.raises(AssertionError) as failed:
            called_for.commands(on(CUSTOMER, "c").do(ReleaseCredit("c", "o", controls.MODES[0])))
        assert "-     aggregate = 'customer'" in str(failed.value)
        assert "+     aggregate = 'order'" in str(failed.value)
        with pytest.raises(AssertionError, match="- nothing"):
            called_for.nothing()


class TestSaga:
    def test_all_steps_succeed(self) -> None:
        (
            given(TRIP)
            .when(BOOKED)
            .expect(hotel.ReserveRoom(**ROOM))
            .reply(hotel.RoomReserved(**ROOM))
            .is_running()
            .expect(hotel.ConfirmBooking(booking_id="b"))
            .reply(hotel.BookingConfirmed(booking_id="b", guest="Ada"))
            .is_completed()
        )

    def test_a_step_that_is_not_answered_is_undone(self) -> None:
        (
            given(TRIP)
            .when(BOOKED)
            .expect(hotel.ReserveRoom(**ROOM))
            .passes(timedelta(seconds=3))
            .times_out()
            .expect(hotel.ReleaseRoom(**ROOM))
            .reply(hotel.RoomReleased(**ROOM))
            .expect(hotel.RejectBooking(booking_id="b"))
            .reply(hotel.BookingRejected(booking_id="b"))
            .is_compensated("DEADLINE_EXCEEDED")
        )

    def test_a_compensation_that_is_not_answered_is_sent_again(self) -> None:
        interrupted = given(TRIP).when(BOOKED).reply(hotel.RoomReserved(**ROOM))
        undoing = interrupted.reply(hotel.BookingCancelled(booking_id="b"))
        release = hotel.ReleaseRoom(**ROOM)
        undoing.expect(hotel.ReserveRoom(**ROOM), hotel.ConfirmBooking(booking_id="b"), release)
        undoing.times_out().times_out().expect(*undoing.sent, release, release)

    def test_operators(self) -> None:
        begun = given(TRIP).when(BOOKED).expect(hotel.ReserveRoom(**ROOM))
        assert begun.retry().sent == [hotel.ReserveRoom(**ROOM)]
        begun.skip("the room is known to be free").expect(hotel.ConfirmBooking(booking_id="b"))
        begun.abort("no more").expect(hotel.ReleaseRoom(**ROOM)).is_running()

    def test_what_was_sent_is_shown(self) -> None:
        begun = given(TRIP).when(BOOKED)
        with pytest.raises(
            AssertionError, match=r"it sent \(- expected, \+ came\):\n- nothing\n\+ ReserveRoom"
        ):
            begun.expect()
        with pytest.raises(AssertionError, match="the instance is running"):
            begun.is_completed()
        with pytest.raises(AssertionError, match=r"say `\.times_out\(\)`"):
            begun.passes(timedelta(hours=1))

    def test_the_shop_s_own(self) -> None:
        (
            given(CREDIT_SAGA)
            .when(controls.order_created(mode=controls.MODES[1]))
            .reply(controls.credit_reserved(mode=controls.MODES[1]))
            .reply(controls.approval_refused(ORDER_STATE_CANCELLED, mode=controls.MODES[1]))
            .is_running()
        )


class TestView:
    def test_the_rows_that_events_come_to(self) -> None:
        opened = given(ROOMS, hotel.RoomOpened(room_id="101"), hotel.RoomOpened(room_id="102"))
        reserved = opened.when(hotel.RoomReserved(**ROOM)).row("101", RoomRow("101", "b"))
        reserved.row("102", RoomRow("102")).row("103", None)
        released = reserved.when(hotel.RoomReleased(**ROOM))
        released.all_rows({"101": RoomRow("101"), "102": RoomRow("102")})

    def test_another_row_is_shown(self) -> None:
        with pytest.raises(AssertionError, match=r"-     booking_id = 'b'\n\+     booking_id = ''"):
            given(ROOMS).when(hotel.RoomOpened(room_id="101")).row("101", RoomRow("101", "b"))


@dataclass
class Basket:
    """A state that can be changed in place."""

    items: list[int]


def basket(**parts: Any) -> Aggregate[Basket, int]:
    said: dict[str, Any] = {
        "decide": lambda held, item: (Int64Value(value=each) for each in [item] if each not in held.items),
        "evolve": lambda held, event: Basket([*held.items, event.value]),
        "partition_key": lambda _held: "one",
    }
    return Aggregate("basket", Basket([]), **{**said, **parts})


def test_a_decider_may_yield() -> None:
    given(basket()).when(1).then(Int64Value(value=1)).when(2).then(Int64Value(value=2))


def test_a_state_that_is_changed_in_place_is_told() -> None:
    def decide(held: Basket, item: int) -> list[Int64Value]:
        held.items.append(item)
        return [Int64Value(value=item)]

    def evolve(held: Basket, event: Any) -> Basket:
        held.items.append(event.value)
        return held

    with pytest.raises(AssertionError, match="decide changed the state that it was given"):
        given(basket(decide=decide)).when(1).then(Int64Value(value=1))
    with pytest.raises(AssertionError, match="evolve changed the state that it was given"):
        given(basket(evolve=evolve)).when(1).then(Int64Value(value=1))


def test_what_is_no_subject_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="takes an Aggregate, Policies, a Saga or a View, not str"):
        given("order")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="begins with its trigger"):
        given(TRIP, BOOKED)  # type: ignore[call-overload]
