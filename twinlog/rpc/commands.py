"""The edge of commands: a servicer's method checks its request, says what to do, and this does the rest.

The rest is the request's identity, the metadata of what it sets off, and the consistency token of the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from hashlib import sha256
from types import CoroutineType
from typing import Any, TypeVar

from google.protobuf.message import Message

from twinlog.log.history import LogHistory
from twinlog.log.past import NOW, Moment
from twinlog.log.ports import Log
from twinlog.log.streams import beginning, fold
from twinlog.log.transaction import Transaction
from twinlog.log.units import Request, StreamRef, refuse_reply
from twinlog.log.unreadable import Unreadable
from twinlog.log.writer import Writer
from twinlog.model.aggregate import Aggregate, AnyAggregate
from twinlog.model.event import Recorded, known_stream
from twinlog.model.schema import Schema
from twinlog.rpc import consistency, tokens
from twinlog.rpc.context import Incoming, call_metadata
from twinlog.rpc.validation import Checks

State = TypeVar("State")
Command = TypeVar("Command")
Response = TypeVar("Response", bound=Message)


class Commands:
    """Runs the commands of a service's edge on its log, and reads the states that they need."""

    def __init__(self, log: Log, writer: Writer) -> None:
        self._log = log
        self._writer = writer
        self._whose = consistency.whose(log)

    @property
    def schema(self) -> Schema:
        """What reads the log's events."""
        return self._writer.schema

    async def execute(
        self,
        request: Message,
        context: Incoming,
        checks: Checks,
        work: Callable[[Transaction], Response],
        response_type: type[Response],
        *,
        preload: Sequence[StreamRef] = (),
        assume_empty: Sequence[StreamRef] = (),
        begins: StreamRef | None = None,
    ) -> Response:
        """Ends the checks, runs ``work`` in a transaction of the log and gives the response that it returns.

        Where the request has a field ``request_id``, its outcome is kept under that id in the same transaction: a
        retry is given the first response. Where the response has a field ``consistency_token``, it is set to the
        position at which the effects are visible; so is the response's metadata ``twinlog-consistency-token``. Events
        carry the call's metadata; their cause is ``rpc/<Method>``, by the name of the request's type,
        ``<Method>Request``.

        ``work`` must be synchronous and pure, since it may run again. ``preload`` names the streams that it reads,
        ``assume_empty`` those of them that should not exist yet; both only save time. ``begins`` names the stream whose
        timer it sets, if a saga is to clear that timer in time: such commands are refused early, as Overloaded, while
        too much of what they began is unfinished.

        Raises InvalidArgument, what ``work`` raises, RequestIdReused, Overloaded or Unavailable.
        """
        identity = self.check(request, checks, response_type)
        outcome = await self._writer.execute(
            work if identity else _answering(work, response_type),
            metadata=call_metadata(context, request.DESCRIPTOR.name.removesuffix("Request")),
            request=identity,
            preload=preload,
            assume_empty=assume_empty,
            outside=True,
            begins=begins,
        )
        token = tokens.write({self._log.name: outcome.position})
        if "consistency_token" in response_type.DESCRIPTOR.fields_by_name:
            outcome.result.consistency_token = token  # type: ignore[attr-defined]
        consistency.tell(context, token, self._whose)
        return outcome.result

    async def do(
        self,
        request: Message,
        context: Incoming,
        checks: Checks,
        aggregate: Aggregate[Any, Command],
        id: str,
        command: Command,
        response: Response,
        *,
        new: bool = False,
    ) -> Response:
        """One command to one aggregate, answered by ``response``: what most methods come to. See :meth:`execute`.

        ``new``: it should not exist yet, which only saves time. Raises what :meth:`execute` and deciding raise.
        """
        stream = [(aggregate, id)]

        def work(transaction: Transaction) -> Response:
            transaction.do(aggregate, id, command)
            return response

        return await self.execute(
            request,
            context,
            checks,
            work,
            type(response),
            preload=stream,
            assume_empty=stream if new else (),
        )

    @staticmethod
    def check(request: Message, checks: Checks, response_type: type[Message]) -> Request | None:
        """Ends the checks, that of ``request_id`` included; for what a method has to await before it executes.

        Gives the request's identity. Raises InvalidArgument.
        """
        identity = request_identity(checks, request, response_type)
        checks.done()
        return identity

    async def state(self, aggregate: Aggregate[State, Any], id: str) -> State:
        """The newest state of an aggregate. Raises Overloaded or Unavailable."""
        outcome = await self._writer.execute(
            lambda tx: tx.state(aggregate, id), preload=[(aggregate, id)], outside=True
        )
        return outcome.result

    async def history(self, aggregate: AnyAggregate, id: str, as_of: Moment = NOW) -> Sequence[Recorded]:
        """Every event of an aggregate as it is stored, oldest first; none where it does not exist. Raises Unavailable.

        ``as_of``: only those up to a moment, as :func:`moment_of` gives it.
        """
        history = LogHistory(self._log)
        return [
            event
            async for events in history.events(known_stream((aggregate.name, id)), as_of)
            for event in events
        ]

    async def folded(
        self, aggregate: Aggregate[State, Any], id: str, as_of: Moment = NOW
    ) -> tuple[Sequence[Recorded], State]:
        """Every event of an aggregate, as :meth:`history` gives them, and the state that they come to.

        Raises StreamUnreadable or Unavailable.
        """
        events = await self.history(aggregate, id, as_of)
        opened = await self._writer.personal.opened(events) if self._writer.personal else events
        folded = fold(self._writer.schema, beginning(aggregate), opened)
        if isinstance(folded, Unreadable):
            raise folded.why
        state: State = folded.state
        return events, state


def request_identity(checks: Checks, request: Message, response_type: type[Message]) -> Request | None:
    """What a request's outcome is kept under.

    None where the request has no ``request_id``, or an empty one; also where it is no UUID, which is noted in
    ``checks``. The fingerprint is the SHA-256 of the request's type and content, with ids in their normal spelling: of
    those fields that ``checks`` has seen, each spelling of an id is the same id.
    """
    if "request_id" not in request.DESCRIPTOR.fields_by_name:
        return None
    given: str = request.request_id  # type: ignore[attr-defined]
    request_id = checks.uuid("request_id", given, required=False)
    if not request_id:
        return None
    normal = _with(request, checks.normal) if checks.normal else request
    fingerprint = _fingerprint(normal)
    if checks.normal.keys() <= {"request_id"}:
        return Request(request_id, fingerprint, response_type)
    as_given = _fingerprint(_with(request, {"request_id": request_id}))
    return Request(request_id, fingerprint, response_type, as_given)


def _answering(
    work: Callable[[Transaction], Response], response_type: type[Response]
) -> Callable[[Transaction], Response]:
    """The same work; raises TypeError, so that nothing is appended, where it gives another answer than it is to."""

    def answering(transaction: Transaction) -> Response:
        response = work(transaction)
        if not isinstance(response, response_type | CoroutineType):
            refuse_reply(response, response_type)
        return response

    return answering


def _with(request: Message, fields: Mapping[str, str]) -> Message:
    """The request with other values in these fields, each named by its path, such as ``selection.saga_id``."""
    changed = type(request)()
    changed.CopyFrom(request)
    for path, value in fields.items():
        *parents, name = path.split(".")
        setattr(reduce(getattr, parents, changed), name, value)
    return changed


def _fingerprint(request: Message) -> bytes:
    name = request.DESCRIPTOR.full_name.encode()
    return sha256(name + b"\0" + request.SerializeToString(deterministic=True)).digest()
