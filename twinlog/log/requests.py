"""What makes a retry safe: the identity of a request (AIP-155)."""

from __future__ import annotations

from typing import NamedTuple

from google.protobuf.message import Message


class Request(NamedTuple):
    """A request whose outcome is kept, so that a retry gets the same answer."""

    request_id: str
    """The client's UUID, lower case."""
    fingerprint: bytes
    """Hash of the request: the same id with another fingerprint is an error."""
    reply_type: type[Message]
    """What the outcome is stored as, and given again as."""
