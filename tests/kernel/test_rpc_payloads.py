"""Payloads as JSON, for clients without their types."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from shop.orders.v1.events_pb2 import OrderCreated, OrderRejected
from shop.orders.v1.order_pb2 import REJECTION_REASON_INSUFFICIENT_CREDIT
from tests.controls import wire
from twinlog.rpc import decoded


@pytest.mark.parametrize(
    "message, expected",
    [
        (
            OrderCreated(order_id="o", total=wire("12.34")),
            {"order_id": "o", "total": {"currency_code": "EUR", "units": "12", "nanos": 340_000_000}},
        ),
        (
            OrderRejected(reason=REJECTION_REASON_INSUFFICIENT_CREDIT),
            {"reason": "REJECTION_REASON_INSUFFICIENT_CREDIT"},
        ),
        # Numbers of JSON are floats, which would round it.
        (Int64Value(value=2**63 - 1), {"value": "9223372036854775807"}),
        (StringValue(value="a"), {"value": "a"}),
        (OrderCreated(), {}),
    ],
)
def test_a_payload_is_an_object_with_exact_numbers(message: Message, expected: dict[str, Any]) -> None:
    text, struct = decoded(message.DESCRIPTOR.full_name, message.SerializeToString())
    assert MessageToDict(struct) == expected
    assert json.loads(text) in (expected, expected.get("value"))


@pytest.mark.parametrize(
    "type_name, payload",
    [
        ("shop.orders.v1.OfTomorrow", b""),
        (OrderCreated.DESCRIPTOR.full_name, b"\xff"),
        (Packed.DESCRIPTOR.full_name, Packed(type_url="x/shop.OfTomorrow", value=b"a").SerializeToString()),
    ],
)
def test_what_cannot_be_read_is_empty(type_name: str, payload: bytes) -> None:
    text, struct = decoded(type_name, payload)
    assert (text, dict(struct)) == ("", {})
