"""Bookings: requested, then confirmed or rejected by the saga, or cancelled by the guest; and the guests' points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests.hotel import messages as pb
from twinlog import Aggregate, Dispatch, Events, NotFound, Policies, on


class BookingNotFound(NotFound):
    """There is no such booking."""

    reason = "BOOKING_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Booking:
    """A guest's booking."""

    state: str = ""
    booking_id: str = ""
    guest: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A guest wants a room."""

    booking_id: str
    room_id: str
    guest: str


@dataclass(frozen=True, slots=True)
class Settle:
    """The saga's answer."""

    confirmed: bool


@dataclass(frozen=True, slots=True)
class Cancel:
    """The guest does not come."""


def decide(booking: Booking, command: Request | Settle | Cancel) -> Events:
    id = booking.booking_id
    match command:
        case Request(booking_id, room_id, guest):
            requested = pb.BookingRequested(booking_id=booking_id, room_id=room_id, guest=guest)
            return [] if booking.state else [requested]
        case Settle(confirmed) if booking.state == "requested":
            confirmation = pb.BookingConfirmed(booking_id=id, guest=booking.guest)
            return [confirmation if confirmed else pb.BookingRejected(booking_id=id)]
        case Cancel() if not booking.state:
            raise BookingNotFound
        case Cancel() if booking.state in ("requested", "confirmed"):
            return [pb.BookingCancelled(booking_id=id)]
    return []


def evolve(booking: Booking, event: Any) -> Booking:
    match event.DESCRIPTOR.name:
        case "BookingRequested":
            return Booking("requested", event.booking_id, event.guest)
        case "BookingConfirmed":
            return replace(booking, state="confirmed")
        case "BookingRejected":
            return replace(booking, state="rejected")
    return replace(booking, state="cancelled")


BOOKING: Aggregate[Booking, Request | Settle | Cancel] = Aggregate(
    "booking", Booking(), decide, evolve, partition_key=lambda booking: booking.booking_id
)

POLICIES = Policies(
    log="trips",
    actor="bookings_svc",
    rules={
        pb.ConfirmBooking: lambda e: on(BOOKING, e.booking_id).do(Settle(confirmed=True)),
        pb.RejectBooking: lambda e: on(BOOKING, e.booking_id).do(Settle(confirmed=False)),
    },
)


# --- points ---


@dataclass(frozen=True, slots=True)
class Points:
    """What a guest has stayed for: a point for each confirmed booking."""

    guest: str = ""
    bookings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Earn:
    """A booking was confirmed."""

    guest: str
    booking_id: str


def decide_points(points: Points, command: Earn) -> Events:
    known = command.booking_id in points.bookings
    return [] if known else [pb.PointsEarned(guest=command.guest, booking_id=command.booking_id)]


def evolve_points(points: Points, event: Any) -> Points:
    return Points(event.guest, (*points.bookings, event.booking_id))


POINTS: Aggregate[Points, Earn] = Aggregate(
    "points", Points(), decide_points, evolve_points, partition_key=lambda points: points.guest
)


def earn(event: Any) -> Dispatch:
    return on(POINTS, event.guest).do(Earn(event.guest, event.booking_id))


POINTS_POLICIES = Policies(log="bookings", actor="bookings_svc", rules={pb.BookingConfirmed: earn})
