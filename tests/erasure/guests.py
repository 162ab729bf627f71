"""An aggregate whose state keeps what is personal, and one that keeps nothing of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message

from tests.erasure.messages import declare
from twinlog import Aggregate, Events

M: dict[str, Any] = declare(
    "tests.guests.v1",
    GuestNamed=[("name", "personal")],
    RoomBooked=[("guest_id", "subject"), ("guest_name", "personal")],
    Noted=[("cause", "Any")],
)


@dataclass(frozen=True, slots=True)
class Guest:
    name: str = ""
    named: int = 0


@dataclass(frozen=True, slots=True)
class Name:
    name: str


class _Refused(Exception):
    """What a decider of no great care says."""


def decide(guest: Guest, command: Name) -> Events:
    if command.name.startswith("!"):
        raise _Refused(f"cannot call {guest.name} {command.name}")
    return [M["GuestNamed"](name=command.name)]


def evolve(guest: Guest, event: Any) -> Guest:
    return replace(guest, name=event.name, named=guest.named + 1)


GUEST: Aggregate[Guest, Name] = Aggregate(
    "guest", Guest(), decide, evolve, partition_key=lambda _guest: "guests"
)


@dataclass(frozen=True, slots=True)
class Room:
    guests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Book:
    guest_id: str
    guest_name: str


def _booked(room: Room, event: Message) -> Room:
    return Room((*room.guests, event.guest_name))  # type: ignore[attr-defined]


ROOM: Aggregate[Room, Book] = Aggregate(
    "room",
    Room(),
    lambda _room, book: [M["RoomBooked"](guest_id=book.guest_id, guest_name=book.guest_name)],
    _booked,
    partition_key=lambda _room: "rooms",
)


def packed(message: Message) -> Packed:
    """The message in an Any."""
    made = Packed()
    made.Pack(message)
    return made
