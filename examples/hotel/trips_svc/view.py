"""The view of trips, of two logs: what became of each, and what is paid."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from twinlog import Recorded, View

from hotel.v1.payments_pb2 import PaymentRefunded, PaymentTaken
from hotel.v1.trips_pb2 import TripBooked, TripCancelled, TripConfirmed, TripRejected


class TripRow(NamedTuple):
    """The columns of table `trips`, in its order."""

    trip_id: str
    guest: str = ""
    room_id: str = ""
    state: str = ""
    """Empty: so far only the other log has told of it."""
    cents: int = 0
    reason: str = ""


def evolve(row: TripRow | None, _event: Recorded, message: Any) -> TripRow:
    row = row or TripRow(message.trip_id)
    match message:
        case TripBooked():
            return row._replace(guest=message.guest, room_id=message.room_id, state="booked")
        case TripConfirmed():
            return row._replace(state="confirmed")
        case TripRejected():
            return row._replace(state="rejected", reason=message.reason)
        case TripCancelled():
            return row._replace(state="cancelled")
        case PaymentTaken():
            return row._replace(cents=message.cents)
        case PaymentRefunded():
            return row._replace(cents=0)
    return row


TRIPS: View[TripRow] = View(
    "trips",
    lambda _event, message: str(message.trip_id),
    evolve,
    shared=True,
    events=[TripBooked, TripConfirmed, TripRejected, TripCancelled, PaymentTaken, PaymentRefunded],
)

PACKAGE = "trips_svc.sql"
ROWS: Mapping[str, type] = {"trips": TripRow}
VIEWS = {"trips": [TRIPS], "payments": [TRIPS]}
"""The views that each log feeds."""
