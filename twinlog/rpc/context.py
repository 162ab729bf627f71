"""What a call carries besides its request: correlation, trace, actor, deadline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias

import grpc.aio
from structlog.contextvars import bind_contextvars

from twinlog.log.system import RandomIds
from twinlog.model.clock import Ids
from twinlog.model.errors import InvalidArgument
from twinlog.model.event import Metadata, known_metadata
from twinlog.model.trace import trace_fields

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
"""What gRPC gives a servicer's method besides the request."""


class Incoming(Protocol):
    """What commands and queries need to know of a call, whatever brought it; a gRPC :data:`Context` is one.

    An edge of another kind, such as one over HTTP, gives its own object with these two methods.
    """

    def invocation_metadata(self) -> Iterable[Any] | None:
        """The call's headers: pairs of a name in lower case and a text."""

    def time_remaining(self) -> float | None:
        """The seconds until the caller gives up; None: it waits."""


CORRELATION_KEY = "x-correlation-id"
TRACE_KEY = "traceparent"
ACTOR_KEY = "x-actor"
EXTRA_PREFIX = "x-extra-"
"""Metadata that begins with it is kept with the events, under the rest of its name."""
_MOST_EXTRA = 8
_NAME = re.compile("[a-z0-9][a-z0-9_-]{0,31}")
_PRINTABLE = re.compile("[ -~]{1,128}")
_TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

TRACE: ContextVar[str] = ContextVar("TRACE", default="")
"""The trace context of the call's own span, where it has one; it takes the place of the caller's."""


def call_metadata(context: Incoming, method: str, ids: Ids = RandomIds()) -> Metadata:
    """The metadata of the events that a call sets off. The call's log lines carry its correlation id from here on, and
    its trace id if it has one.

    It is read from the call's own metadata: ``x-correlation-id`` and ``x-actor`` (1 to 128 printable ASCII
    characters) and ``traceparent`` (W3C). What is missing or malformed becomes a new UUID, "client" and empty.

    Up to 8 keys such as ``x-extra-tenant`` become the metadata's ``extra``, here ``{"tenant": …}``: what follows the
    prefix is 1 to 32 of a-z, 0-9, - and _, a value 1 to 128 printable ASCII characters. Raises InvalidArgument for
    others: an event without its tenant would be nobody's.
    """
    given: Mapping[str, str] = {
        key: text for key, text in context.invocation_metadata() or () if isinstance(text, str)
    }
    # Every command comes by here, and few callers say anything: what they leave out is not looked at.
    correlation = (_matching(_PRINTABLE, given[CORRELATION_KEY]) if CORRELATION_KEY in given else "") or str(
        ids.uuid7()
    )
    actor = (_matching(_PRINTABLE, given[ACTOR_KEY]) if ACTOR_KEY in given else "") or "client"
    if trace := TRACE.get() or (_matching(_TRACEPARENT, given[TRACE_KEY]) if TRACE_KEY in given else ""):
        bind_contextvars(correlation_id=correlation, **trace_fields(trace))
    else:
        bind_contextvars(correlation_id=correlation)
    extra = _extra(given) if EXTRA_PREFIX in "\n".join(given) else {}
    return known_metadata((correlation, f"rpc/{method}", trace, actor, extra))


def given_trace(context: Incoming) -> str:
    """The trace context that the caller gave; empty where it is missing or malformed."""
    for key, text in context.invocation_metadata() or ():
        if key == TRACE_KEY:
            return text if isinstance(text, str) and _TRACEPARENT.fullmatch(text) else ""
    return ""


def _extra(given: Mapping[str, str]) -> Mapping[str, str]:
    extra = {key[len(EXTRA_PREFIX) :]: text for key, text in given.items() if key.startswith(EXTRA_PREFIX)}
    wrong = {
        f"{EXTRA_PREFIX}{name}": "is metadata of 1 to 128 printable ASCII characters under a name of 1 to 32 of a-z, "
        "0-9, - and _"
        for name, text in extra.items()
        if not _NAME.fullmatch(name) or not _PRINTABLE.fullmatch(text)
    }
    if len(extra) > _MOST_EXTRA:
        wrong[f"{EXTRA_PREFIX}*"] = f"is given {len(extra)} times; at most {_MOST_EXTRA} are kept"
    if wrong:
        raise InvalidArgument(wrong)
    return extra


def time_left(context: Incoming, at_most: float = 30.0) -> float:
    """The seconds that a method may wait and still answer in time: 90 % of what the deadline leaves, up to
    ``at_most``; without a deadline ``at_most``."""
    remaining = context.time_remaining()
    return at_most if remaining is None else max(0.0, min(at_most, remaining * 0.9))


def _matching(pattern: re.Pattern[str], text: str) -> str:
    return text if pattern.fullmatch(text) else ""
