"""All services at once, in memory: trips in both modes."""

import pytest
from twinlog.testing import World

from hotel.v1 import trips_pb2 as pb
from hotel.v1.rooms_pb2 import AddRoomRequest
from payments_svc.provider import FakeProvider
from tests.world import hotel
from trips_svc.domain import TRIP
from trips_svc.view import TRIPS

NIGHTS = ["2027-05-01", "2027-05-02"]


def book(world: World, mode: pb.Mode, room_id: str, guest: str = "Ada") -> str:
    request = pb.BookTripRequest(guest=guest, room_id=room_id, nights=NIGHTS, mode=mode)
    booked = world.call("trips_svc", "BookTrip", request)
    trip_id: str = booked.trip_id
    own = pb.GetTripRequest(trip_id=trip_id, consistency_token=booked.consistency_token)
    assert world.call("trips_svc", "GetTrip", own).guest == guest  # at once: the view has waited for it
    [*_, last] = world.call("trips_svc", "WatchTrip", own)
    assert last.state in ("confirmed", "rejected")
    world.settle()
    return trip_id


@pytest.mark.parametrize("mode", [pb.MODE_ORCHESTRATION, pb.MODE_CHOREOGRAPHY])
def test_a_trip_is_all_done_or_all_undone(mode: pb.Mode) -> None:
    provider = FakeProvider()
    with World(hotel(provider)) as world:
        for room_id, cents in (("101", 9_000), ("suite", 90_000)):
            world.call("rooms_svc", "AddRoom", AddRoomRequest(room_id=room_id, cents_a_night=cents))
        first, second = book(world, mode, "101"), book(world, mode, "101", "Grace")
        dear, nowhere = book(world, mode, "suite"), book(world, mode, "attic")
        told = {trip_id: (row.state, row.cents, row.reason) for trip_id, row in world.rows(TRIPS).items()}
        assert told == {
            first: ("confirmed", 18_000, ""),
            second: ("rejected", 0, "The room is taken."),
            dear: ("rejected", 0, "The payment was declined."),
            nowhere: ("rejected", 0, "There is no such room."),
        }
        assert provider.charged == {first: 18_000}
        world.call("trips_svc", "CancelTrip", pb.CancelTripRequest(trip_id=first))
        world.settle()
        assert (world.state(TRIP, first).state, provider.charged) == ("cancelled", {})
        third = book(world, mode, "101", "Grace")
        assert world.rows(TRIPS)[third].state == "confirmed"
