"""Payloads of any type, as clients without the type's descriptor can read them."""

from __future__ import annotations

import json

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from twinlog.model.messages import message_class


def decoded(type_name: str, payload: bytes) -> tuple[str, Struct]:
    """The protobuf JSON of a payload, as text and as an object; a value that is no object is its field "value".

    64-bit integers are strings, as protobuf JSON has them. Both are empty where the type, or the type in a
    google.protobuf.Any inside, is unknown to this process, or where the bytes are none of it.
    """
    struct = Struct()
    try:
        message = message_class(type_name).FromString(payload)
        value = MessageToDict(message, preserving_proto_field_name=True)
    except (KeyError, DecodeError, TypeError):
        return "", struct
    struct.update(value if isinstance(value, dict) else {"value": value})
    return json.dumps(value), struct
