"""The hotel under simulation: what its guests do, what has to hold, and bugs that have to be found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

from google.protobuf.message import Message

from tests.hotel import messages as pb
from tests.hotel.bookings import BOOKING, POINTS, Points
from tests.hotel.rooms import ROOM, Room
from tests.hotel.services import HOTEL
from twinlog import Recorded
from twinlog.testing import Call, Invariants, Scenario, Scene, SeededIds, check

_ROOMS = ("101", "102")


def script(chance: Random) -> Sequence[Call]:
    """Two rooms are opened, some guests book them, and half of those cancel."""
    ids = SeededIds(chance)

    def call(at: float, service: str, method: str, request: Any) -> Call:
        request.request_id = str(ids.uuid7())
        return Call(at, service, method, request, correlation_id=str(ids.uuid7()))

    calls = [call(0.1, "rooms_svc", "OpenRoom", pb.OpenRoomRequest(room_id=room)) for room in _ROOMS]
    for _ in range(chance.randint(1, 6)):
        booking, room, at = str(ids.uuid7()), chance.choice(_ROOMS), chance.uniform(0.3, 9)
        guest = chance.choice(("Ada", "Grace"))
        wanted = pb.BookRoomRequest(booking_id=booking, room_id=room, guest=guest)
        calls.append(call(at, "bookings_svc", "BookRoom", wanted))
        if chance.random() < 0.5:
            cancelled = pb.CancelBookingRequest(booking_id=booking)
            calls.append(call(at + chance.random(), "bookings_svc", "CancelBooking", cancelled))
    return calls


class HotelInvariants(Invariants):
    """A room has one guest, a confirmed booking has its room, and no other booking has one in the end."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.holders: dict[str, str] = {}
        self.points: dict[str, int] = defaultdict(int)

    def event(self, event: Recorded, message: Any) -> None:
        match message.DESCRIPTOR.name:
            case "RoomReserved":
                holder = self.holders.get(message.room_id)
                check(not holder, "one guest", f"{message.room_id} has {holder}, gets {message.booking_id}")
                self.holders[message.room_id] = message.booking_id
            case "RoomReleased" if self.holders.get(message.room_id) == message.booking_id:
                del self.holders[message.room_id]
            case "PointsEarned":
                self.points[message.booking_id] += 1
                check(self.points[message.booking_id] == 1, "points", f"{message.booking_id} counts twice")

    def acknowledged(self, call: Call, response: Message) -> None:
        if call.method == "BookRoom":
            booking = self.scene.state(BOOKING, call.request.booking_id)
            check(bool(booking.state), "acknowledged", f"lost: {call}")

    def unfinished(self) -> Iterator[str]:
        for id, booking in self.scene.states(BOOKING).items():
            has_room = id in self.holders.values()
            if booking.state == "requested":
                yield f"booking {id} has no answer"
            elif has_room != (booking.state == "confirmed"):
                yield f"booking {id} is {booking.state}, and {'has' if has_room else 'has no'} room"


SCENARIO = Scenario(HOTEL, script)


@contextmanager
def no_tombstone() -> Iterator[None]:
    """A room forgets what was released: a reservation that comes late, or again, is made."""
    evolve = ROOM.evolve

    def forget(room: Room, event: Any) -> Room:
        return replace(evolve(room, event), released=frozenset())

    with _planted(ROOM, "evolve", forget):
        yield


@contextmanager
def not_idempotent() -> Iterator[None]:
    """Points are given for each time that a confirmation is seen."""

    def count(points: Points, event: Any) -> Points:
        return Points(event.guest)

    with _planted(POINTS, "evolve", count):
        yield


@contextmanager
def _planted(target: Any, name: str, value: Any) -> Iterator[None]:
    with patch.dict(vars(target), {name: value}):  # aggregates are frozen
        yield
