"""What trips are told: by the saga, or by the other services' events where they are choreographed."""

from twinlog import Policies, on

from hotel.v1.payments_pb2 import PaymentDeclined, PaymentTaken
from hotel.v1.rooms_pb2 import RoomRefused
from hotel.v1.trips_pb2 import MODE_CHOREOGRAPHY, ConfirmTrip, Mode, RejectTrip
from trips_svc.domain import TRIP, Settle

CHOREOGRAPHY = Mode.Name(MODE_CHOREOGRAPHY)

POLICIES = (
    Policies(
        log="trips",
        actor="trips_svc",
        rules={
            ConfirmTrip: lambda e: on(TRIP, e.trip_id).do(Settle(confirmed=True)),
            RejectTrip: lambda e: on(TRIP, e.trip_id).do(Settle(confirmed=False, reason=e.reason)),
        },
    ),
    Policies(
        log="rooms",
        actor="trips_svc",
        rules={RoomRefused: lambda e: on(TRIP, e.trip_id).do(Settle(confirmed=False, reason=e.reason))},
        routing_key=CHOREOGRAPHY,
    ),
    Policies(
        log="payments",
        actor="trips_svc",
        rules={
            PaymentTaken: lambda e: on(TRIP, e.trip_id).do(Settle(confirmed=True)),
            PaymentDeclined: lambda e: on(TRIP, e.trip_id).do(Settle(False, "The payment was declined.")),
        },
        routing_key=CHOREOGRAPHY,
    ),
)
