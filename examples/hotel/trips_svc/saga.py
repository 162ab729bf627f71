"""The saga of a trip, orchestrated: hold the room, take the payment, confirm."""

from datetime import timedelta

from twinlog import Saga, SagaContext, Step, saga_aggregate

from hotel.v1 import payments_pb2 as payments
from hotel.v1 import rooms_pb2 as rooms
from hotel.v1 import trips_pb2 as trips


def hold_room(saga: SagaContext) -> trips.HoldRoom:
    trip = saga.trigger
    return trips.HoldRoom(trip_id=trip.trip_id, room_id=trip.room_id, nights=trip.nights, mode=trip.mode)


def free_room(saga: SagaContext) -> trips.FreeRoom:
    trip = saga.trigger
    return trips.FreeRoom(trip_id=trip.trip_id, room_id=trip.room_id, mode=trip.mode)


def take_payment(saga: SagaContext) -> trips.TakePayment:
    held = saga.replies["hold room"]
    return trips.TakePayment(trip_id=held.trip_id, cents=held.cents, mode=held.mode)


TRIP_SAGA = Saga(
    "trip",
    version=1,
    starts_with=trips.TripBooked,
    steps=[
        Step(
            "hold room",
            send=hold_room,
            done=rooms.RoomHeld,
            refused=rooms.RoomRefused,
            why=lambda refused: refused.reason,
            undo=free_room,
            undone=rooms.RoomFreed,
            deadline=timedelta(minutes=1),
        ),
        Step(
            "take payment",
            send=take_payment,
            done=payments.PaymentTaken,
            refused=payments.PaymentDeclined,
            why=lambda _declined: "The payment was declined.",
            undo=lambda saga: trips.RefundPayment(trip_id=saga.trigger.trip_id, mode=saga.trigger.mode),
            undone=payments.PaymentRefunded,
            deadline=timedelta(minutes=1),
        ),
        Step(
            "confirm trip",
            send=lambda saga: trips.ConfirmTrip(trip_id=saga.trigger.trip_id),
            done=trips.TripConfirmed,
        ),
    ],
    on_compensated=Step(
        "reject trip",
        send=lambda saga: trips.RejectTrip(trip_id=saga.trigger.trip_id, reason=saga.reason),
        done=trips.TripRejected,
    ),
    interrupted_by={trips.TripCancelled: lambda _cancelled: "CANCELLED"},
    id=lambda event: event.trip_id,
    sources={
        "trips": [trips.TripBooked, trips.TripConfirmed, trips.TripRejected, trips.TripCancelled],
        "rooms": [rooms.RoomHeld, rooms.RoomRefused, rooms.RoomFreed],
        "payments": [payments.PaymentTaken, payments.PaymentDeclined, payments.PaymentRefunded],
    },
    routing_key=trips.Mode.Name(trips.MODE_ORCHESTRATION),
    partition_key=lambda trip: trip.trip_id,
)

TRIP_SAGAS = saga_aggregate(TRIP_SAGA)
