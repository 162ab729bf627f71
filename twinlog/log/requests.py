"""The identity of a request, which makes its retries safe (AIP-155)."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from types import CoroutineType
from typing import Any, NamedTuple, NoReturn, TypeVar

from google.protobuf.message import Message

from twinlog.log.transaction import Transaction
from twinlog.model.errors import TwinlogError

T = TypeVar("T")


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


class RequestIdIgnored(TwinlogError):
    """{method} was called with a request_id and appends events without it, so that a retry would append them again;
    call `Commands.execute`, or give `Writer.execute` a `request`."""

    reason = "REQUEST_ID_IGNORED"


CALLED_WITH_ID: ContextVar[str] = ContextVar("called_with_id", default="")
"""The method that is being served, if its request carries a request_id."""


def refusing_events(work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """The same work for a call that carries a request_id: raises RequestIdIgnored where it decides any event."""
    method = CALLED_WITH_ID.get()
    if not method:
        return work

    def reads(transaction: Transaction) -> T:
        result = work(transaction)
        if transaction.decided:
            raise RequestIdIgnored(method=method)
        return result

    return reads


def refuse_async(work: CoroutineType[Any, Any, Any]) -> NoReturn:
    """Work gave a coroutine, which nobody would wait for. Raises TypeError."""
    work.close()
    raise TypeError(
        f"{work.__qualname__} is async, and a unit of work is not waited for; make it a plain function"
    )


def refuse_reply(reply: object, reply_type: type[Message]) -> NoReturn:
    """Work gave another reply than it is to give, which nobody could read. Raises TypeError."""
    wanted = reply_type.DESCRIPTOR.full_name
    raise TypeError(f"the work answers with {type(reply).__name__}, and is to answer with {wanted}")
