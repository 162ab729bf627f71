"""Units of work on their way through a writer, and what they came to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import DecodeError

from twinlog.log.ports import CheckpointAdvance, StoredReply
from twinlog.log.requests import Request
from twinlog.log.transaction import Transaction
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.errors import RequestIdReused
from twinlog.model.event import Metadata

T = TypeVar("T")
StreamRef = tuple[AnyAggregate, str]
"""A stream: its aggregate and its id."""


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
        try:
            self.settle(self.request.reply_type.FromString(stored.reply), stored.position)
        except DecodeError as error:  # it concerns no other unit
            self.fail(error)


def fail_all(units: Iterable[Unit], error: BaseException) -> None:
    """Raises the error in every caller."""
    for unit in units:
        unit.fail(error)
