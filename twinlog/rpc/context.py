"""What a call carries besides its request: correlation, trace, actor, deadline, identity."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Any, TypeAlias

import grpc.aio
from google.protobuf.message import Message
from structlog.contextvars import bind_contextvars

from twinlog.log.requests import Request
from twinlog.log.system import RandomIds
from twinlog.model.clock import Ids
from twinlog.model.event import Metadata
from twinlog.rpc.validation import Checks

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

CORRELATION_KEY = "x-correlation-id"
TRACE_KEY = "traceparent"
ACTOR_KEY = "x-actor"
_PRINTABLE = re.compile("[ -~]{1,128}")
_TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def call_metadata(context: Context, method: str, ids: Ids = RandomIds()) -> Metadata:
    """The metadata of whatever this call sets off; its correlation id goes into the log lines of the call.

    Read from the call's metadata: ``x-correlation-id`` and ``x-actor`` (1 to 128 printable ASCII
    characters), ``traceparent`` (W3C). One that is missing or malformed is replaced: by a new UUID, by
    "client", by nothing.
    """
    given = {key: text for key, text in context.invocation_metadata() or () if isinstance(text, str)}
    correlation = _matching(_PRINTABLE, given.get(CORRELATION_KEY)) or str(ids.uuid7())
    actor = _matching(_PRINTABLE, given.get(ACTOR_KEY)) or "client"
    trace = _matching(_TRACEPARENT, given.get(TRACE_KEY))
    bind_contextvars(correlation_id=correlation)
    return Metadata(correlation, f"rpc/{method}", trace, actor)


def request_identity(checks: Checks, request: Message, reply_type: type[Message]) -> Request | None:
    """Under what a request's outcome is kept; None where its ``request_id`` is empty or no UUID, which is noted.

    The fingerprint is SHA-256 over the request's type and its content.
    """
    request_id = checks.uuid("request_id", request.request_id, required=False)  # type: ignore[attr-defined]
    if not request_id:
        return None
    if request.request_id != request_id:  # type: ignore[attr-defined]
        request.request_id = request_id  # type: ignore[attr-defined]  # in upper case, it is the same id
    name = request.DESCRIPTOR.full_name.encode()
    fingerprint = sha256(name + b"\0" + request.SerializeToString(deterministic=True)).digest()
    return Request(request_id, fingerprint, reply_type)


def time_left(context: Context, at_most: float = 30.0) -> float:
    """How many seconds a method may wait and still answer: nine tenths of what the deadline leaves.

    Without a deadline, ``at_most``.
    """
    remaining: float | None = context.time_remaining()
    return at_most if remaining is None else max(0.0, min(at_most, remaining * 0.9))


def _matching(pattern: re.Pattern[str], text: str | None) -> str:
    return text if text and pattern.fullmatch(text) else ""
