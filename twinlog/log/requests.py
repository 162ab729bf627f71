"""The identity of a request, which makes its retries safe (AIP-155)."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import Message


class Request(NamedTuple):
    """A request whose outcome is stored, so that a retry gets the same answer."""

    request_id: str
    """The client's UUID, in lower case."""
    fingerprint: bytes
    """Hash of the request: the same id with another fingerprint is an error."""
    reply_type: type[Message]
    """The type of the outcome."""
    fingerprint_as_given: bytes = b""
    """Where ids are in another spelling than the normal one: the hash that 0.1.0 kept for the request."""
