"""What is asked of payments: by the saga's commands, or by the events of trips that are choreographed."""

from typing import Any

from twinlog import Dispatch, Policies, on

from hotel.v1.rooms_pb2 import RoomHeld
from hotel.v1.trips_pb2 import (
    MODE_CHOREOGRAPHY,
    Mode,
    RefundPayment,
    TakePayment,
    TripCancelled,
    TripRejected,
)
from payments_svc.domain import PAYMENT


def ask(command: TakePayment | RefundPayment) -> Dispatch | None:
    return on(PAYMENT, command.trip_id).do(command)


def held(event: RoomHeld) -> Dispatch | None:
    return ask(TakePayment(trip_id=event.trip_id, cents=event.cents, mode=event.mode))


def over(event: Any) -> Dispatch | None:
    if event.mode != MODE_CHOREOGRAPHY:
        return None
    return ask(RefundPayment(trip_id=event.trip_id, mode=event.mode))


RULES = {TakePayment: ask, RefundPayment: ask, TripRejected: over, TripCancelled: over}
TRIPS = Policies(log="trips", actor="payments_svc", rules=RULES)
ROOMS = Policies("rooms", "payments_svc", {RoomHeld: held}, routing_key=Mode.Name(MODE_CHOREOGRAPHY))
