"""The one error tree. The docstring of a class is its message; its facts fill the placeholders.

``reason`` is the UPPER_SNAKE_CASE word that clients can rely on (google.rpc.ErrorInfo.reason);
:mod:`twinlog.rpc` maps the branches to gRPC codes in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class TwinlogError(Exception):
    """Something went wrong in Twinlog."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str | None = None, **facts: object) -> None:
        self.facts: Mapping[str, str] = {name: str(fact) for name, fact in facts.items()}
        template = message if message is not None else _first_paragraph(self.__doc__)
        super().__init__(template.format_map(self.facts) if self.facts else template)


def _first_paragraph(text: str | None) -> str:
    """A docstring's first paragraph in one line: the message of an error that has no other."""
    return " ".join((text or "").split("\n\n")[0].split())


class InvalidArgument(TwinlogError):
    """The request has invalid fields."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Mapping[str, str]) -> None:
        self.violations = dict(violations)
        super().__init__("; ".join(f"{field}: {what}" for field, what in self.violations.items()))


class NotFound(TwinlogError):
    """There is no such thing."""

    reason = "NOT_FOUND"


class AlreadyExists(TwinlogError):
    """It exists already."""

    reason = "ALREADY_EXISTS"


class RequestIdReused(AlreadyExists):
    """request_id {request_id} was used for another request; use a new UUID for each new request."""

    reason = "REQUEST_ID_REUSED"


class FailedPrecondition(TwinlogError):
    """The state does not allow it."""

    reason = "FAILED_PRECONDITION"


class StreamUnreadable(FailedPrecondition):
    """Stream {stream} is unreadable at version {version}: {why}"""

    reason = "STREAM_UNREADABLE"


class Unavailable(TwinlogError):
    """Not available at the moment; try again with the same request_id."""

    reason = "UNAVAILABLE"


def unexpected(error: Exception) -> Exception | None:
    """The error where nobody expected it, so that its traceback is logged; None where it says itself what is wrong."""
    return None if isinstance(error, TwinlogError) else error


class PartlyUnavailable(Unavailable):
    """What is stored there cannot be read ({why})."""

    # Nothing is said of what else was asked for: a reader of several reads each by itself then.


class Overloaded(Unavailable):
    """{waiting} commands are already waiting; try again later with the same request_id."""

    reason = "OVERLOADED"


class WrongSetting(Unavailable):
    """A setting, or what it leads to, has turned out wrong while running: an outage until somebody mends it.

    Its message names the setting and the way out. At start the same is refused, as a ConfigurationError.
    """


class RowsRefused(WrongSetting):
    """POSTGRES_URL: {what}, which no migration made, refuses rows ({why}); {remedy}"""

    # Some rows may pass all the same, so it concerns those alone that wrote the others.


class Unimplemented(TwinlogError):
    """{method} is not implemented by this service."""

    reason = "UNIMPLEMENTED"


class CheckpointMoved(TwinlogError):
    """Checkpoint {consumer} is at {actual}, not at {expected}: another replica handled these events."""

    reason = "CHECKPOINT_MOVED"


class UnknownEventType(TwinlogError):
    """Message type {type} is unknown to this program; deploy a version that knows it, or add an upcaster."""

    reason = "UNKNOWN_EVENT_TYPE"


class UndecodableEvent(TwinlogError):
    """The payload of event {event} cannot be parsed as {type}; put back the bytes that its stream or a backup has."""

    reason = "UNDECODABLE_EVENT"


class UpcasterFailed(UndecodableEvent):
    """The upcaster of {type} fails on event {event}: {why}; deploy a version that upcasts it."""

    reason = "UPCASTER_FAILED"


class ConfigurationError(TwinlogError):
    """The configuration is wrong."""

    reason = "CONFIGURATION"
