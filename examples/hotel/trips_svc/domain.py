"""A trip: booked, then confirmed or rejected; cancelled whenever the guest says so."""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message
from twinlog import Aggregate, Events, NotFound

from hotel.v1.trips_pb2 import Mode, TripBooked, TripCancelled, TripConfirmed, TripRejected


@dataclass(frozen=True, slots=True)
class Trip:
    trip_id: str = ""
    room_id: str = ""
    mode: int = 0
    state: str = ""
    """booked, confirmed, rejected or cancelled; empty: there is no such trip."""


@dataclass(frozen=True, slots=True)
class Book:
    trip_id: str
    guest: str
    room_id: str
    nights: tuple[str, ...]
    mode: Mode


@dataclass(frozen=True, slots=True)
class Settle:
    confirmed: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    pass


class TripNotFound(NotFound):
    """There is no such trip; right after booking it, pass the consistency_token of the response."""

    reason = "TRIP_NOT_FOUND"


def decide(trip: Trip, command: Book | Settle | Cancel) -> Events:
    ids: dict[str, Any] = {"trip_id": trip.trip_id, "mode": trip.mode}
    match command:
        case Book(trip_id, guest, room_id, nights, mode) if not trip.state:
            return [TripBooked(trip_id=trip_id, guest=guest, room_id=room_id, nights=nights, mode=mode)]
        case Settle(True) if trip.state == "booked":
            return [TripConfirmed(**ids)]
        case Settle(False, reason) if trip.state == "booked":
            return [TripRejected(**ids, room_id=trip.room_id, reason=reason)]
        case Cancel() if not trip.state:
            raise TripNotFound
        case Cancel() if trip.state in ("booked", "confirmed"):
            return [TripCancelled(**ids, room_id=trip.room_id)]
    return []


def evolve(trip: Trip, event: Message) -> Trip:
    match event:
        case TripBooked():
            return Trip(event.trip_id, event.room_id, event.mode, "booked")
        case TripConfirmed():
            return replace(trip, state="confirmed")
        case TripRejected():
            return replace(trip, state="rejected")
        case TripCancelled():
            return replace(trip, state="cancelled")
    return trip


TRIP: Aggregate[Trip, Book | Settle | Cancel] = Aggregate(
    "trip", Trip(), decide, evolve, partition_key=lambda trip: trip.trip_id
)
