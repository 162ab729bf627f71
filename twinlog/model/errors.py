"""The one error tree. The docstring of a class is its message; its facts fill the placeholders.

``reason`` is the UPPER_SNAKE_CASE word that clients can rely on (google.rpc.ErrorInfo.reason);
:mod:`twinlog.rpc` maps the branches to gRPC codes in one table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NoReturn

_LONGEST_TEXT = 2_000


def text_of(value: object) -> str:
    """What a value says, as it can be stored and sent: an error may quote what is no text, or fail to say anything."""
    try:
        text = str(value)
    except Exception:
        return "its text cannot be told"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def named(error: BaseException) -> str:
    """An error's type and text, as much of it as somebody reads."""
    text = text_of(error)
    if len(text) > _LONGEST_TEXT:
        text = f"{text[: _LONGEST_TEXT - 1]}…"
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def defect(error: BaseException) -> Exception:
    """What a function of the domain raised, as an error of that alone for which it was called.

    What only computes can neither be cancelled nor end a process, so that SystemExit, a cancellation or the panic of
    an extension are errors like others. StopIteration would pass for the end of whatever iterates.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    told = RuntimeError(f"it raises {named(error)}").with_traceback(error.__traceback__)
    told.__cause__ = error
    return told


def raise_defect(error: BaseException) -> NoReturn:
    """Raises what :func:`defect` makes of an error, which keeps its causes."""
    raise defect(error)


class TwinlogError(Exception):
    """Something went wrong in Twinlog."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str | None = None, **facts: object) -> None:
        self.facts: Mapping[str, str] = {name: text_of(fact) for name, fact in facts.items()}
        template = message if message is not None else _first_paragraph(self.__doc__)
        super().__init__(text_of(template.format_map(self.facts) if self.facts else template))


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


class ReplyUnreadable(FailedPrecondition):
    """request_id {request_id} was carried out, but its reply cannot be read as {type}; see what it did, and put back
    its row of table requests from a backup where the reply itself is needed."""

    reason = "REPLY_UNREADABLE"


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
