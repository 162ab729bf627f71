"""The wiring and the edges of the hotel's services."""

from __future__ import annotations

from typing import Any

from tests.hotel import messages as pb
from tests.hotel.bookings import BOOKING, POINTS, POINTS_POLICIES, Cancel, Request
from tests.hotel.bookings import POLICIES as BOOKING_POLICIES
from tests.hotel.rooms import POLICIES as ROOM_POLICIES
from tests.hotel.rooms import ROOM, ROOMS, OpenRoom
from tests.hotel.trips import PATIENT_TRIPS, TRIPS, policies
from twinlog import Address, Projection, Service, ServiceSpec, Settings, Transaction, ViewStore
from twinlog.rpc import Checks, Commands, Context
from twinlog.testing import Hosted


class HotelSettings(Settings):
    """The settings of a hotel's service."""

    address: Address = "127.0.0.1:50061"
    """Where it serves."""


def _spec(name: str, log: str, *aggregates: Any) -> ServiceSpec:
    return ServiceSpec(
        name=name,
        log=log,
        database=f"hotel_{log}",
        domain="hotel",
        settings=HotelSettings,
        address="address",
        aggregates=aggregates,
    )


class RoomService:
    """The edge of rooms_svc."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def OpenRoom(self, request: Any, context: Context) -> Any:
        def open_room(tx: Transaction) -> Any:
            tx.do(ROOM, request.room_id, OpenRoom(request.room_id))
            return pb.OpenRoomResponse()

        return await self._commands.execute(request, context, Checks(), open_room, pb.OpenRoomResponse)


class BookingService:
    """The edge of bookings_svc."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def BookRoom(self, request: Any, context: Context) -> Any:
        def book(tx: Transaction) -> Any:
            wanted = Request(request.booking_id, request.room_id, request.guest)
            tx.do(BOOKING, request.booking_id, wanted)
            return pb.BookRoomResponse()

        return await self._commands.execute(request, context, Checks(), book, pb.BookRoomResponse)

    async def CancelBooking(self, request: Any, context: Context) -> Any:
        def cancel(tx: Transaction) -> Any:
            tx.do(BOOKING, request.booking_id, Cancel())
            return pb.CancelBookingResponse()

        return await self._commands.execute(request, context, Checks(), cancel, pb.CancelBookingResponse)


def wire_rooms(service: Service, views: ViewStore) -> RoomService:
    service.subscribe(ROOM_POLICIES)
    service.subscribe(Projection("rooms_svc.rooms", [ROOMS], views, schema=service.schema))
    return RoomService(Commands(service.log, service.writer))


def wire_bookings(service: Service, _views: ViewStore) -> BookingService:
    service.subscribe(BOOKING_POLICIES, POINTS_POLICIES)
    return BookingService(Commands(service.log, service.writer))


def wire_trips(service: Service, _views: ViewStore) -> None:
    service.subscribe(*policies(service.clock))


def wire_patient_trips(service: Service, _views: ViewStore) -> None:
    service.subscribe(*policies(service.clock, PATIENT_TRIPS))


HOTEL = [
    Hosted(_spec("rooms_svc", "rooms", ROOM), wire_rooms),
    Hosted(_spec("bookings_svc", "bookings", BOOKING, POINTS), wire_bookings),
    Hosted(_spec("trips_svc", "trips", TRIPS), wire_trips),
]

PATIENT_HOTEL = [*HOTEL[:2], Hosted(_spec("trips_svc", "trips", PATIENT_TRIPS), wire_patient_trips)]
"""The same, whose rooms are ready at the third attempt only."""
