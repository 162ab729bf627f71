"""The booking saga: reserve the room, then confirm the booking; a cancelled booking gives the room back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.hotel import messages as pb
from twinlog import (
    Aggregate,
    Backoff,
    Begin,
    Clock,
    Dispatch,
    Policies,
    Reply,
    Saga,
    Step,
    on,
    saga_aggregate,
)


def _ids(trigger: Any) -> dict[str, str]:
    return {"room_id": trigger.room_id, "booking_id": trigger.booking_id}


TRIP = Saga(
    "trip",
    version=1,
    starts_with=pb.BookingRequested,
    steps=[
        Step(
            "reserve room",
            send=lambda saga: pb.ReserveRoom(**_ids(saga.trigger)),
            done=pb.RoomReserved,
            refused=pb.RoomRefused,
            undo=lambda saga: pb.ReleaseRoom(**_ids(saga.trigger)),
            undone=pb.RoomReleased,
            deadline=timedelta(seconds=4),
        ),
        Step(
            "confirm booking",
            send=lambda saga: pb.ConfirmBooking(booking_id=saga.trigger.booking_id),
            done=pb.BookingConfirmed,
        ),
    ],
    on_compensated=Step(
        "reject booking",
        send=lambda saga: pb.RejectBooking(booking_id=saga.trigger.booking_id),
        done=pb.BookingRejected,
    ),
    interrupted_by={pb.BookingCancelled: lambda _cancelled: "CANCELLED"},
    partition_key=lambda trigger: str(trigger.booking_id),
)

TRIPS = saga_aggregate(TRIP)

_reserve, _confirm = TRIP.steps
PATIENT_TRIPS = saga_aggregate(
    replace(
        TRIP,
        steps=[
            replace(
                _reserve,
                send=lambda saga: pb.ReserveRoom(**_ids(saga.trigger), attempt=str(saga.attempt)),
                transient=pb.RoomNotReady,
                retries=3,
                backoff=Backoff(first=timedelta(seconds=1)),
            ),
            _confirm,
        ],
    )
)
"""Those that ask again for a room that is not ready."""


def policies(clock: Clock, trips: Aggregate[Any, Any] = TRIPS) -> Sequence[Policies]:
    """What starts the saga, and what answers it."""

    def begin(event: Any) -> Dispatch:
        return on(trips, event.booking_id).create(Begin(event, clock.now()))

    def reply(event: Any) -> Dispatch:
        return on(trips, event.booking_id).do(Reply(event, clock.now()))

    answers = (pb.BookingConfirmed, pb.BookingRejected, pb.BookingCancelled)
    return [
        Policies("bookings", "trips_svc", {pb.BookingRequested: begin, **dict.fromkeys(answers, reply)}),
        Policies(
            "rooms",
            "trips_svc",
            dict.fromkeys((pb.RoomReserved, pb.RoomRefused, pb.RoomNotReady, pb.RoomReleased), reply),
        ),
    ]
