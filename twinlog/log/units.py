"""Units of work on their way through a writer, what they came to, and the requests behind them (AIP-155)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import CoroutineType
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from google.protobuf.message import DecodeError, Message

from twinlog.log.ports import CheckpointAdvance, StoredReply
from twinlog.log.transaction import Transaction
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import ReplyUnreadable, RequestIdReused, TwinlogError
from twinlog.model.event import Metadata

T = TypeVar("T")
StreamRef = tuple[AnyAggregate, str]
"""A stream: its aggregate and its id."""


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


class Outcome(NamedTuple, Generic[T]):
    """What a unit of work came to."""

    result: T
    position: int
    """The position of the log at which its effects are visible."""


@dataclass(eq=False)
class Unit:
    """One unit of work, and the caller that waits for it."""

    work: Callable[[Transaction], Any]
    metadata: Metadata
    request: Request | None
    advance: CheckpointAdvance | None
    preload: Sequence[StreamRef]
    assume_empty: Sequence[StreamRef]
    done: asyncio.Future[Outcome[Any]]

    def settle(self, result: Any, position: int) -> None:
        """Gives the caller its outcome."""
        if not self.done.done():
            self.done.set_result(Outcome(result, position))

    def fail(self, error: BaseException) -> None:
        """Raises the error in the caller."""
        if not self.done.done():
            self.done.set_exception(error)

    def answer(self, stored: StoredReply) -> None:
        """Answers a retry with the stored outcome of its request."""
        assert self.request is not None
        if stored.fingerprint not in (self.request.fingerprint, self.request.fingerprint_as_given):
            self.fail(RequestIdReused(request_id=self.request.request_id))
            return
        request_id, _, reply_type, *_ = self.request
        try:
            self.settle(reply_type.FromString(stored.reply), stored.position)
        except DecodeError as error:  # it concerns no other unit
            told = ReplyUnreadable(request_id=request_id, type=reply_type.DESCRIPTOR.full_name)
            told.__cause__ = error
            self.fail(told)


def fail_all(units: Iterable[Unit], error: BaseException) -> None:
    """Raises the error in every caller."""
    for unit in units:
        unit.fail(error)


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
