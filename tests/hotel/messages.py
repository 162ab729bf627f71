"""The hotel's messages, made from a table: a test's domain needs no generated code."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

_MESSAGES = {
    "RoomOpened": "room_id",
    "RoomReserved": "room_id booking_id",
    "RoomRefused": "room_id booking_id",
    "RoomNotReady": "room_id booking_id attempt",
    "RoomReleased": "room_id booking_id",
    "BookingRequested": "booking_id room_id guest",
    "BookingConfirmed": "booking_id guest",
    "BookingRejected": "booking_id",
    "BookingCancelled": "booking_id",
    "ReserveRoom": "room_id booking_id attempt",
    "ReleaseRoom": "room_id booking_id",
    "ConfirmBooking": "booking_id",
    "RejectBooking": "booking_id",
    "PointsEarned": "guest booking_id",
    "OpenRoomRequest": "request_id room_id",
    "OpenRoomResponse": "",
    "BookRoomRequest": "request_id booking_id room_id guest",
    "BookRoomResponse": "",
    "CancelBookingRequest": "request_id booking_id",
    "CancelBookingResponse": "",
}
"""By name, the fields: all of them texts."""


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="tests/hotel.proto", package="hotel.v1", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields.split(), 1):
            text, single = FieldDescriptorProto.TYPE_STRING, FieldDescriptorProto.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=text, label=single)
    return file


descriptor_pool.Default().AddSerializedFile(_file().SerializeToString())


def _made(name: str) -> Any:
    found = descriptor_pool.Default().FindMessageTypeByName(f"hotel.v1.{name}")
    return message_factory.GetMessageClass(found)


RoomOpened = _made("RoomOpened")
RoomReserved = _made("RoomReserved")
RoomRefused = _made("RoomRefused")
RoomNotReady = _made("RoomNotReady")
RoomReleased = _made("RoomReleased")
BookingRequested = _made("BookingRequested")
BookingConfirmed = _made("BookingConfirmed")
BookingRejected = _made("BookingRejected")
BookingCancelled = _made("BookingCancelled")
ReserveRoom = _made("ReserveRoom")
ReleaseRoom = _made("ReleaseRoom")
ConfirmBooking = _made("ConfirmBooking")
RejectBooking = _made("RejectBooking")
PointsEarned = _made("PointsEarned")
OpenRoomRequest = _made("OpenRoomRequest")
OpenRoomResponse = _made("OpenRoomResponse")
BookRoomRequest = _made("BookRoomRequest")
BookRoomResponse = _made("BookRoomResponse")
CancelBookingRequest = _made("CancelBookingRequest")
CancelBookingResponse = _made("CancelBookingResponse")
