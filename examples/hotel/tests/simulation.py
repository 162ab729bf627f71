"""What guests do while everything goes wrong, and what has to hold: `twinlog simulate` runs it."""

from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from twinlog import Recorded
from twinlog.testing import Call, Invariants, Scenario, SeededIds, Simulation, check

from hotel.v1 import trips_pb2 as pb
from hotel.v1.rooms_pb2 import AddRoomRequest, RoomHeld
from payments_svc.domain import PAYMENT
from payments_svc.provider import FakeProvider
from rooms_svc.domain import ROOM
from tests.world import hotel
from trips_svc.domain import TRIP


def script(chance: Random) -> Sequence[Call]:
    ids = SeededIds(chance)

    def call(at: float, service: str, method: str, request: Any) -> Call:
        request.request_id = str(ids.uuid7())
        return Call(at, service, method, request, correlation_id=str(ids.uuid7()))

    rooms = [("101", 9_000), ("suite", 90_000)]
    calls = [
        call(0.1, "rooms_svc", "AddRoom", AddRoomRequest(room_id=room_id, cents_a_night=cents))
        for room_id, cents in rooms
    ]
    for _ in range(chance.randint(1, 5)):
        trip = pb.BookTripRequest(guest="Ada", room_id=chance.choice(rooms)[0])
        trip.nights.extend(chance.sample(["2027-05-01", "2027-05-02", "2027-05-03"], 2))
        trip.mode = chance.choice((pb.MODE_ORCHESTRATION, pb.MODE_CHOREOGRAPHY))
        at = chance.uniform(0.3, 9)
        calls.append(call(at, "trips_svc", "BookTrip", trip))
        if chance.random() < 0.4:
            cancelled = pb.CancelTripRequest(trip_id=trip.request_id)
            calls.append(call(at + 2 * chance.random(), "trips_svc", "CancelTrip", cancelled))
    return calls


class AllOrNothing(Invariants):
    """A confirmed trip has its room and is paid; any other has and has paid nothing, once it is over."""

    def event(self, event: Recorded, message: Any) -> None:
        if isinstance(message, RoomHeld):
            nights = [night for night, _ in self.scene.state(ROOM, message.room_id).taken]
            check(len(nights) == len(set(nights)), "one guest", f"{message.room_id} is overbooked: {nights}")

    def unfinished(self) -> Iterator[str]:
        rooms = self.scene.states(ROOM).values()
        housed = {trip_id for room in rooms for _, trip_id in room.taken}
        for trip_id, trip in self.scene.states(TRIP).items():
            paid = trip_id in self.scene.options.charged
            if trip.state == "booked" or {paid, trip_id in housed} != {trip.state == "confirmed"}:
                yield f"trip {trip_id} is {trip.state}, paid: {paid}, has a room: {trip_id in housed}"

    def at_rest(self) -> None:
        for trip_id, cents in self.scene.options.charged.items():
            taken = self.scene.state(PAYMENT, trip_id).cents
            check(cents == taken, "charged once", f"trip {trip_id} is charged {cents} instead of {taken}")


SCENARIO = Scenario(hotel, script, options=lambda _chance: FakeProvider())
"""The provider is the world's, not a process's: it outlives crashes."""

SIMULATION = Simulation(SCENARIO, AllOrNothing)
"""What pyproject.toml names."""
