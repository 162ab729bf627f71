"""Rooms: each holds one booking at a time, and remembers what was released."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message

from tests.hotel import messages as pb
from twinlog import Aggregate, Dispatch, Events, Policies, Recorded, View, on


@dataclass(frozen=True, slots=True)
class Room:
    """A room."""

    room_id: str = ""
    booking_id: str = ""
    """Who has it; empty: it is free."""
    refused: frozenset[str] = frozenset()
    """Bookings that were told that it is taken."""
    released: frozenset[str] = frozenset()
    """Bookings that it is never given to any more: their tombstones."""
    put_off: frozenset[tuple[str, int]] = frozenset()
    """Bookings, each with an attempt that came before the room was ready."""


@dataclass(frozen=True, slots=True)
class OpenRoom:
    """There is such a room."""

    room_id: str


@dataclass(frozen=True, slots=True)
class Reserve:
    """A booking wants it."""

    room_id: str
    booking_id: str
    attempt: int = 0
    """The first two find the room not ready; 0: where nobody counts, it is."""


@dataclass(frozen=True, slots=True)
class Release:
    """A booking does not want it any more, whether it ever had it or not."""

    room_id: str
    booking_id: str


def decide(room: Room, command: OpenRoom | Reserve | Release) -> Events:
    match command:
        case OpenRoom(room_id):
            return [] if room.room_id else [pb.RoomOpened(room_id=room_id)]
        case Reserve(room_id, booking_id, attempt):
            if booking_id in {room.booking_id} | room.refused | room.released:
                return []
            ids = {"room_id": room_id, "booking_id": booking_id}
            if any(booking == booking_id and attempt <= last for booking, last in room.put_off):
                return []  # it was answered
            if 1 <= attempt <= 2:
                return [pb.RoomNotReady(**ids, attempt=str(attempt))]
            free = room.room_id and not room.booking_id
            return [pb.RoomReserved(**ids) if free else pb.RoomRefused(**ids)]
        case Release(room_id, booking_id):
            released = booking_id in room.released
            return [] if released else [pb.RoomReleased(room_id=room_id, booking_id=booking_id)]


def evolve(room: Room, event: Any) -> Room:
    match event.DESCRIPTOR.name:
        case "RoomOpened":
            return replace(room, room_id=event.room_id)
        case "RoomReserved":
            return replace(room, booking_id=event.booking_id)
        case "RoomRefused":
            return replace(room, refused=room.refused | {event.booking_id})
        case "RoomNotReady":
            return replace(room, put_off=room.put_off | {(event.booking_id, int(event.attempt))})
        case "RoomReleased":
            holder = "" if room.booking_id == event.booking_id else room.booking_id
            return replace(room, booking_id=holder, released=room.released | {event.booking_id})
    return room


ROOM: Aggregate[Room, OpenRoom | Reserve | Release] = Aggregate(
    "room", Room(), decide, evolve, partition_key=lambda room: room.room_id
)


def reserve(command: Any) -> Dispatch:
    return on(ROOM, command.room_id).do(
        Reserve(command.room_id, command.booking_id, int(command.attempt or 0))
    )


def release(command: Any) -> Dispatch:
    return on(ROOM, command.room_id).do(Release(command.room_id, command.booking_id))


POLICIES = Policies(log="trips", actor="rooms_svc", rules={pb.ReserveRoom: reserve, pb.ReleaseRoom: release})


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A room as it is shown."""

    room_id: str
    booking_id: str = ""


def _shown(row: RoomRow | None, _event: Recorded, message: Any) -> RoomRow:
    match message.DESCRIPTOR.name:
        case "RoomReserved":
            return RoomRow(message.room_id, message.booking_id)
        case "RoomReleased" if row and row.booking_id == message.booking_id:
            return RoomRow(message.room_id)
    return row or RoomRow(message.room_id)


ROOMS = View("rooms", lambda _event, message: str(message.room_id), _shown, events=[Message])
