"""The error tree as gRPC sees it: one table of codes, and google.rpc.Status with typed details.

(google.aip.dev/193: every error has an ErrorInfo whose reason is unique in its domain.)
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from twinlog.model.errors import (
    AlreadyExists,
    CheckpointMoved,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Overloaded,
    TwinlogError,
    Unavailable,
)

CODES: dict[type[TwinlogError], StatusCode] = {
    TwinlogError: StatusCode.INTERNAL,
    InvalidArgument: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
    AlreadyExists: StatusCode.ALREADY_EXISTS,
    FailedPrecondition: StatusCode.FAILED_PRECONDITION,
    Unavailable: StatusCode.UNAVAILABLE,
    CheckpointMoved: StatusCode.ABORTED,
}
"""The code of each branch of the tree; the nearest ancestor counts."""

RETRY_AFTER: dict[type[TwinlogError], Duration] = {
    Unavailable: Duration(nanos=100_000_000),
    Overloaded: Duration(seconds=1),
}
"""When to try again, by branch."""

DETAILS_KEY = "grpc-status-details-bin"
_LONGEST_MESSAGE = 1024
_LONGEST_FACT = 256
_MOST_BYTES = 4608


def code_of(error: TwinlogError) -> StatusCode:
    """The gRPC code of an error."""
    return next(CODES[branch] for branch in type(error).__mro__ if branch in CODES)


def status_of(error: TwinlogError, domain: str) -> Status:
    """The error with its details: ErrorInfo always, BadRequest and RetryInfo where they apply."""
    info = ErrorInfo(reason=error.reason, domain=domain)
    info.metadata.update({name: _cut(fact, _LONGEST_FACT) for name, fact in error.facts.items()})
    return make_status(code_of(error), str(error), info, *_violations(error), *_retry(error))


def make_status(code: StatusCode, message: str, *details: Message) -> Status:
    """A status small enough for a client's header limit (8 KiB): if need be, only the first detail stays."""
    # On the wire the message is percent-encoded: up to twelve bytes a character.
    longest = _LONGEST_MESSAGE if message.isascii() else _LONGEST_MESSAGE // 4
    status = Status(code=code.value[0], message=_cut(message, longest))
    for detail in details:
        status.details.add().Pack(detail)
    if status.ByteSize() > _MOST_BYTES:
        del status.details[1:]
    return status


def _violations(error: TwinlogError) -> Sequence[Message]:
    if not isinstance(error, InvalidArgument):
        return []
    return [
        BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=field, description=_cut(what, _LONGEST_FACT))
                for field, what in error.violations.items()
            ]
        )
    ]


def _retry(error: TwinlogError) -> Sequence[Message]:
    delays = (RETRY_AFTER[branch] for branch in type(error).__mro__ if branch in RETRY_AFTER)
    return [RetryInfo(retry_delay=delay) for delay in delays][:1]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
