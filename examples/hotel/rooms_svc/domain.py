"""A room: who has it on which night. Two of its commands are the messages that the saga of a trip sends."""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message
from twinlog import Aggregate, Events

from hotel.v1.rooms_pb2 import RoomAdded, RoomFreed, RoomHeld, RoomRefused
from hotel.v1.trips_pb2 import FreeRoom, HoldRoom


@dataclass(frozen=True, slots=True)
class Room:
    room_id: str = ""
    cents_a_night: int = 0
    taken: frozenset[tuple[str, str]] = frozenset()
    """Nights, each with its trip."""
    answered: frozenset[str] = frozenset()
    """Trips that asked for it."""
    freed: frozenset[str] = frozenset()
    """Trips that do not need it: what they ask for later comes to nothing."""


@dataclass(frozen=True, slots=True)
class AddRoom:
    room_id: str
    cents_a_night: int


def decide(room: Room, command: AddRoom | HoldRoom | FreeRoom) -> Events:
    match command:
        case AddRoom(room_id, cents) if not room.room_id:
            return [RoomAdded(room_id=room_id, cents_a_night=cents)]
        case HoldRoom() if command.trip_id not in room.answered | room.freed:
            return [hold(room, command)]
        case FreeRoom() if command.trip_id not in room.freed:
            return [RoomFreed(room_id=command.room_id, trip_id=command.trip_id, mode=command.mode)]
    return []


def hold(room: Room, wanted: HoldRoom) -> RoomHeld | RoomRefused:
    ids: dict[str, Any] = {"room_id": wanted.room_id, "trip_id": wanted.trip_id, "mode": wanted.mode}
    if not room.room_id:
        return RoomRefused(**ids, reason="There is no such room.")
    if not {night for night, _ in room.taken}.isdisjoint(wanted.nights):
        return RoomRefused(**ids, reason="The room is taken.")
    return RoomHeld(**ids, nights=wanted.nights, cents=room.cents_a_night * len(wanted.nights))


def evolve(room: Room, event: Message) -> Room:
    match event:
        case RoomAdded():
            return replace(room, room_id=event.room_id, cents_a_night=event.cents_a_night)
        case RoomHeld():
            taken = room.taken | {(night, event.trip_id) for night in event.nights}
            return replace(room, taken=taken, answered=room.answered | {event.trip_id})
        case RoomRefused():
            return replace(room, answered=room.answered | {event.trip_id})
        case RoomFreed():
            taken = frozenset(each for each in room.taken if each[1] != event.trip_id)
            return replace(room, taken=taken, freed=room.freed | {event.trip_id})
    return room


ROOM: Aggregate[Room, AddRoom | HoldRoom | FreeRoom] = Aggregate(
    "room", Room(), decide, evolve, partition_key=lambda room: room.room_id
)
