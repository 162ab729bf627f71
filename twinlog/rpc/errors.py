"""Errors as gRPC clients see them: one table of codes, and a google.rpc.Status with typed details.

Every error has an ErrorInfo whose reason is unique in its domain (google.aip.dev/193).
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import structlog
from google.protobuf import descriptor_pool
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
    Unimplemented,
)
from twinlog.model.personal import has_own
from twinlog.model.withheld import withheld

_log = structlog.get_logger(component="rpc")

CODES: dict[type[TwinlogError], StatusCode] = {
    TwinlogError: StatusCode.INTERNAL,
    InvalidArgument: StatusCode.INVALID_ARGUMENT,
    NotFound: StatusCode.NOT_FOUND,
    AlreadyExists: StatusCode.ALREADY_EXISTS,
    FailedPrecondition: StatusCode.FAILED_PRECONDITION,
    Unavailable: StatusCode.UNAVAILABLE,
    Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    CheckpointMoved: StatusCode.ABORTED,
    Unimplemented: StatusCode.UNIMPLEMENTED,
}
"""The code of each branch of the error tree; that of the nearest ancestor applies."""

RETRY_AFTER: dict[type[TwinlogError], Duration] = {
    Unavailable: Duration(nanos=100_000_000),
    Overloaded: Duration(seconds=1),
}
"""How long a client should wait before it tries again, by branch; that of the nearest ancestor applies."""

DETAILS_KEY = "grpc-status-details-bin"
_MAX_MESSAGE_LENGTH = 1024
_MAX_FACT_LENGTH = 256
_MAX_STATUS_BYTES = 4608


def code_of(error: TwinlogError) -> StatusCode:
    """The gRPC code of an error."""
    return next(CODES[branch] for branch in type(error).__mro__ if branch in CODES)


def status_of(error: TwinlogError, domain: str) -> Status:
    """The status of an error: with ErrorInfo always, with BadRequest and RetryInfo where they apply.

    ``domain``: the ErrorInfo domain of the service.
    """
    info = ErrorInfo(reason=error.reason, domain=domain)
    info.metadata.update({name: _cut(fact, _MAX_FACT_LENGTH) for name, fact in error.facts.items()})
    return make_status(code_of(error), str(error), info, *_violations(error), *_retry(error))


def failure_of(error: BaseException, method: str, domain: str) -> Status:
    """The status of whatever a method raised, for an edge of any kind.

    ``method``: ``package.Service/Method``; ``domain``: the ErrorInfo domain of the service. A TwinlogError is told as
    :func:`status_of` has it. Anything else is a defect: INTERNAL with an ``error_id``, under which the traceback is
    logged, and without a text where the method's request or response has personal fields.
    """
    if isinstance(error, TwinlogError):
        status = status_of(error, domain)
        if status.code == StatusCode.INTERNAL.value[0]:
            _log.error("rpc.failed", method=method, exc_info=withheld(error, _handles_personal(method)))
        return status
    error_id = str(uuid4())
    shown = withheld(error, _handles_personal(method))
    _log.error("rpc.failed", method=method, error_id=error_id, exc_info=shown)
    info = ErrorInfo(reason="INTERNAL", domain=domain, metadata={"error_id": error_id})
    return make_status(StatusCode.INTERNAL, f"Internal error {error_id}.", info)


def _handles_personal(method: str) -> bool:
    """Whether the requests or the responses of a method have personal fields."""
    service, _, name = method.strip("/").partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    except KeyError:
        return False
    return has_own(found.input_type.full_name) or has_own(found.output_type.full_name)


def make_status(code: StatusCode, message: str, *details: Message) -> Status:
    """A status that fits into a client's header limit of 8 KiB; if need be, without all details but the first."""
    # On the wire the message is percent-encoded: up to twelve bytes a character.
    longest = _MAX_MESSAGE_LENGTH if message.isascii() else _MAX_MESSAGE_LENGTH // 4
    status = Status(code=code.value[0], message=_cut(message, longest))
    for detail in details:
        status.details.add().Pack(detail)
    if status.ByteSize() > _MAX_STATUS_BYTES:
        del status.details[1:]
    return status


def _violations(error: TwinlogError) -> Sequence[Message]:
    if not isinstance(error, InvalidArgument):
        return []
    return [
        BadRequest(
            field_violations=[
                BadRequest.FieldViolation(field=field, description=_cut(what, _MAX_FACT_LENGTH))
                for field, what in error.violations.items()
            ]
        )
    ]


def _retry(error: TwinlogError) -> Sequence[Message]:
    delays = (RETRY_AFTER[branch] for branch in type(error).__mro__ if branch in RETRY_AFTER)
    return [RetryInfo(retry_delay=delay) for delay in delays][:1]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
