"""What a service answers: a message, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

T = TypeVar("T")
_DETAILS = "grpc-status-details-bin"


class Why(StrEnum):
    GONE = "gone"
    """Nothing listens at its address."""
    SLOW = "slow"
    """It did not answer by the deadline."""
    UNABLE = "unable"
    """It answered that it cannot at the moment."""
    REFUSED = "refused"
    """It answered with an error."""
    UNKNOWN = "unknown"
    """The console has no address for it."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a service answered: a message, or why there is none."""

    service: str
    message: T | None = None
    why: Why | None = None
    """None where there is a message."""
    problem: str = ""
    """The same in words, for people."""
    reason: str = ""
    """Of a refusal, its UPPER_SNAKE_CASE reason, or else the name of its gRPC code."""

    @property
    def ok(self) -> bool:
        """Whether there is a message."""
        return self.message is not None

    @property
    def silent(self) -> bool:
        """Whether it may be answered later, by the same service as it is."""
        return self.why in (Why.GONE, Why.SLOW, Why.UNABLE)

    @property
    def unserved(self) -> bool:
        """Whether the service is of a version that has no such method, so that nothing is known of what it has."""
        return self.reason == "UNIMPLEMENTED"


def failed(service: str, error: grpc.aio.AioRpcError, seconds: float) -> Answer[Any]:
    """What there is instead of a message; ``seconds``: how long the service had."""
    code = error.code()
    details = (error.details() or code.name).removesuffix(".")  # it becomes part of a sentence
    reason = _reason(error) or code.name
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Answer(service, None, Why.SLOW, f"no answer in {seconds:g} s", reason)
    if code is grpc.StatusCode.UNAVAILABLE and not _reason(error):
        return Answer(service, None, Why.GONE, "nothing answers at its address", reason)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        return Answer(service, None, Why.UNABLE, details, reason)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Answer(service, None, Why.REFUSED, "this version of it does not serve that", reason)
    return Answer(service, None, Why.REFUSED, details, reason)


def _reason(error: grpc.aio.AioRpcError) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            for packed in Status.FromString(bytes(value)).details:
                info = ErrorInfo()
                if packed.Unpack(info):
                    return str(info.reason)
    return ""
