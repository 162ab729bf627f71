"""Decisions, reactions, the saga and the view, on values."""

from typing import Any

import pytest
from twinlog import on
from twinlog.testing import given

from hotel.v1 import payments_pb2 as payments
from hotel.v1 import rooms_pb2 as rooms
from hotel.v1 import trips_pb2 as trips
from payments_svc.domain import PAYMENT, NoteAnswer
from rooms_svc.domain import ROOM, AddRoom
from rooms_svc.policies import POLICIES
from trips_svc.domain import TRIP, Cancel, Settle, TripNotFound
from trips_svc.saga import TRIP_SAGA
from trips_svc.view import TRIPS, TripRow

MODE, NIGHTS = trips.MODE_ORCHESTRATION, ["2027-05-01", "2027-05-02"]
IDS: dict[str, Any] = {"trip_id": "t", "room_id": "101", "mode": MODE}
BOOKED = trips.TripBooked(**IDS, guest="Ada", nights=NIGHTS)
ADDED, HOLD = rooms.RoomAdded(room_id="101", cents_a_night=9_000), trips.HoldRoom(**IDS, nights=NIGHTS)
HELD, FREED = rooms.RoomHeld(**IDS, nights=NIGHTS, cents=18_000), rooms.RoomFreed(**IDS)
TAKE = trips.TakePayment(trip_id="t", cents=18_000, mode=MODE)
TAKEN = payments.PaymentTaken(trip_id="t", cents=18_000, mode=MODE)
DECLINED = payments.PaymentDeclined(trip_id="t", mode=MODE)


def test_a_room_is_held_by_one_trip_a_night() -> None:
    given(ROOM).when(AddRoom("101", 9_000)).then(ADDED).when(HOLD).then(HELD)
    late = trips.HoldRoom(trip_id="u", room_id="101", nights=NIGHTS[:1], mode=MODE)
    refused = rooms.RoomRefused(room_id="101", trip_id="u", reason="The room is taken.", mode=MODE)
    given(ROOM, ADDED, HELD).when(late).then(refused)
    given(ROOM, ADDED, FREED).when(HOLD).then_nothing()  # it was freed before it was asked for


def test_a_payment_is_answered_once() -> None:
    requested = payments.PaymentRequested(trip_id="t", cents=18_000, mode=MODE)
    given(PAYMENT).when(TAKE).then(requested).when(NoteAnswer(True)).then(TAKEN)
    given(PAYMENT, requested, DECLINED).when(NoteAnswer(True)).then_nothing()


def test_a_trip_is_settled_once() -> None:
    confirmed, cancelled = trips.TripConfirmed(trip_id="t", mode=MODE), trips.TripCancelled(**IDS)
    given(TRIP, BOOKED).when(Settle(True)).then(confirmed).when(Cancel()).then(cancelled)
    given(TRIP, BOOKED, cancelled).when(Settle(True)).then_nothing()
    with pytest.raises(TripNotFound):
        TRIP.decide(TRIP.initial, Cancel())


def test_rooms_hear_commands_and_choreographed_trips() -> None:
    given(POLICIES).when(HOLD).commands(on(ROOM, "101").do(HOLD))
    given(POLICIES).when(BOOKED).nothing()
    choreographed = trips.TripBooked(trip_id="t", room_id="101", nights=NIGHTS, mode=trips.MODE_CHOREOGRAPHY)
    hold = trips.HoldRoom(trip_id="t", room_id="101", nights=NIGHTS, mode=trips.MODE_CHOREOGRAPHY)
    given(POLICIES).when(choreographed).commands(on(ROOM, "101").do(hold))


def test_the_saga_goes_forward_or_back() -> None:
    paying = given(TRIP_SAGA).when(BOOKED).expect(HOLD).reply(HELD).expect(TAKE)
    confirming = paying.reply(TAKEN).expect(trips.ConfirmTrip(trip_id="t"))
    confirming.reply(trips.TripConfirmed(trip_id="t", mode=MODE)).is_completed()
    freeing = paying.reply(DECLINED).expect(trips.FreeRoom(**IDS))
    reason = "The payment was declined."
    rejecting = freeing.reply(FREED).expect(trips.RejectTrip(trip_id="t", reason=reason))
    rejecting.reply(trips.TripRejected(**IDS, reason=reason)).is_compensated(reason)


def test_the_view_takes_either_log_first() -> None:
    row = TripRow("t", "Ada", "101", "booked", 18_000)
    given(TRIPS).when(BOOKED, TAKEN).row("t", row)
    given(TRIPS).when(TAKEN, BOOKED).row("t", row)
