"""The edge: commands of trips, and queries of their view."""

from collections.abc import AsyncIterator
from datetime import date
from typing import Any

from twinlog import Ids, ViewStore
from twinlog.rpc import Checks, Commands, Context, ReadModel

from hotel.v1 import trips_pb2 as pb
from hotel.v1.trips_pb2_grpc import TripQueryServiceServicer, TripServiceServicer
from trips_svc.domain import TRIP, Book, Cancel, TripNotFound
from trips_svc.view import TRIPS


class TripService(TripServiceServicer):
    def __init__(self, commands: Commands, ids: Ids) -> None:
        self._commands = commands
        self._ids = ids

    async def BookTrip(self, request: pb.BookTripRequest, context: Context) -> pb.BookTripResponse:
        checks = Checks()
        guest, room_id = checks.name("guest", request.guest), checks.name("room_id", request.room_id)
        mode: Any = checks.enum("mode", request.mode, pb.Mode, required=False) or pb.MODE_ORCHESTRATION
        nights = _nights(checks, request)
        trip_id = checks.uuid("request_id", request.request_id, required=False) or str(self._ids.uuid7())
        command, response = Book(trip_id, guest, room_id, nights, mode), pb.BookTripResponse(trip_id=trip_id)
        return await self._commands.do(request, context, checks, TRIP, trip_id, command, response, new=True)

    async def CancelTrip(self, request: pb.CancelTripRequest, context: Context) -> pb.CancelTripResponse:
        checks = Checks()
        trip_id = checks.uuid("trip_id", request.trip_id)
        response = pb.CancelTripResponse()
        return await self._commands.do(request, context, checks, TRIP, trip_id, Cancel(), response)


class TripQueries(TripQueryServiceServicer):
    def __init__(self, reads: ReadModel, views: ViewStore) -> None:
        self._reads = reads
        self._views = views

    async def GetTrip(self, request: pb.GetTripRequest, context: Context) -> pb.Trip:
        return await self._trip(await self._fresh(request, context))

    async def WatchTrip(self, request: pb.GetTripRequest, context: Context) -> AsyncIterator[pb.Trip]:
        trip_id = await self._fresh(request, context)
        async for trip in self._reads.watch(lambda: self._trip(trip_id), trip_id):
            yield trip
            if trip.state != "booked":
                return

    async def _fresh(self, request: pb.GetTripRequest, context: Context) -> str:
        """The trip that is asked for, once the view has what the request's token stands for."""
        checks = Checks()
        trip_id = checks.uuid("trip_id", request.trip_id)
        await self._reads.fresh(checks, request, context)
        return trip_id

    async def _trip(self, trip_id: str) -> pb.Trip:
        row = (await self._views.rows(TRIPS, [trip_id])).get(trip_id)
        if row is None or not row.state:
            raise TripNotFound
        return pb.Trip(**row._asdict())


def _nights(checks: Checks, request: pb.BookTripRequest) -> tuple[str, ...]:
    """The nights, each once and in order."""
    if not 1 <= len(request.nights) <= 30:
        checks.violate("nights", "has to be 1 to 30 days, each as 2027-05-01")
    for night in request.nights:
        try:
            date.fromisoformat(night)
        except ValueError:
            checks.violate("nights", f"{night!r} is no day; write it as 2027-05-01")
    return tuple(sorted(set(request.nights)))
