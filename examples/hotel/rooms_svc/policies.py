"""What trips ask of rooms: by the saga's commands, or by their own events where they are choreographed."""

from typing import Any

from twinlog import Dispatch, Policies, on

from hotel.v1.trips_pb2 import MODE_CHOREOGRAPHY, FreeRoom, HoldRoom, TripBooked, TripCancelled, TripRejected
from rooms_svc.domain import ROOM


def ask(command: HoldRoom | FreeRoom) -> Dispatch | None:
    return on(ROOM, command.room_id).do(command)


def choreographed(event: Any) -> Dispatch | None:
    ids = {"trip_id": event.trip_id, "room_id": event.room_id, "mode": event.mode}
    if event.mode != MODE_CHOREOGRAPHY:
        return None
    return ask(HoldRoom(**ids, nights=event.nights) if isinstance(event, TripBooked) else FreeRoom(**ids))


POLICIES = Policies(
    log="trips",
    actor="rooms_svc",
    rules={
        HoldRoom: ask,
        FreeRoom: ask,
        TripBooked: choreographed,
        TripRejected: choreographed,
        TripCancelled: choreographed,
    },
)
