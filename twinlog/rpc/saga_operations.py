"""What operators do with the sagas of a process: look at one, retry, skip, abort. SagaServices rest on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from twinlog.log.past import NOW, Moment
from twinlog.log.saga_list import SagaKey, SelectedSagas
from twinlog.log.transaction import Transaction
from twinlog.model.clock import Clock
from twinlog.model.errors import FailedPrecondition, NotFound
from twinlog.model.event import Recorded
from twinlog.model.saga import Abort, Retry, SagaInstance, SagaStatus, Skip
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_table import Saga
from twinlog.rpc.commands import Commands
from twinlog.rpc.context import Context
from twinlog.rpc.saga_mapping import commands_sent, shown
from twinlog.rpc.validation import Checks
from twinlog.v1 import saga_service_pb2 as pb

R = TypeVar("R", bound=Message)
FindSagas = Callable[[int], Awaitable[SelectedSagas]]
"""From the most that are wanted: up to that many sagas, and how many there are."""
Order = Retry | Skip | Abort


class SagaNotFound(NotFound):
    """There is no such saga here: its id or the name of its table is another, or it has not begun yet."""

    reason = "SAGA_NOT_FOUND"


class FoundSaga(NamedTuple):
    """One saga, read from the log."""

    table: Saga
    instance: SagaInstance
    events: Sequence[Recorded]
    """Of its stream."""
    shown: pb.Saga
    sent: Sequence[Recorded | None]
    """Of each awaited answer, the command that it is awaited to."""


class _Rehearsed(Exception):
    """Takes back what a dry run has decided."""

    def __init__(self, response: Message) -> None:
        super().__init__()
        self.response = response


class SagaOperations:
    """The sagas of one service's log."""

    def __init__(
        self,
        commands: Commands,
        sagas: Sequence[SagaAggregate],
        clock: Clock,
        *,
        not_found: type[NotFound] = SagaNotFound,
    ) -> None:
        """``not_found``: raised where a saga that was named is not there."""
        self.sagas = {aggregate.current.name: aggregate for aggregate in sagas}
        """By the names of their tables."""
        self._commands = commands
        self._clock = clock
        self._not_found = not_found

    async def get(self, saga: SagaKey, as_of: Moment = NOW) -> FoundSaga:
        """One saga, up to date, or as it was at a moment. Raises NotFound, StreamUnreadable or Unavailable."""
        aggregate = self.sagas[saga.saga]
        events, instance = await self._commands.folded(aggregate, saga.saga_id, as_of)
        if not events:
            raise self._not_found
        table = aggregate.versions[instance.version]
        sent = commands_sent(table, instance, events, self._commands.schema)
        return FoundSaga(table, instance, events, shown(table, instance, events, sent), sent)

    async def intervene(
        self,
        request: Any,
        context: Context,
        command: type[Order],
        selection: Callable[[Checks], FindSagas],
        response: type[R],
        *,
        rehearse: bool = True,
    ) -> R:
        """Gives the same order to every selected saga, in one transaction.

        ``request`` has the fields of twinlog.v1.RetrySagasRequest. Where it names one saga, what is in the way is
        raised, otherwise told. ``rehearse``: a dry run decides, too, and commits nothing; otherwise it only counts.
        """
        checks = Checks()
        if command is not Retry or request.reason:
            checks.name("reason", request.reason)
        limit = checks.page_size("limit", request.limit)
        find = selection(checks)
        order = _at_step(command(request.reason, self._clock.now()), request)
        self._commands.check(request, checks, response)  # before the list is read
        keys, selected = await find(limit)
        if request.dry_run and not rehearse:
            return response(selected=selected)
        by_name = request.selection.WhichOneof("by") != "filter"

        def intervene(tx: Transaction) -> R:
            outcomes = [_outcome(response, key, self._problem(tx, key, order, by_name)) for key in keys]
            applied = sum(not outcome["problem"] for outcome in outcomes)
            done = response(selected=selected, applied=applied, outcomes=outcomes)
            if request.dry_run:
                raise _Rehearsed(done)
            return done

        streams = [(self.sagas[key.saga], key.saga_id) for key in keys if key.saga in self.sagas]
        try:
            return await self._commands.execute(
                request, context, checks, intervene, response, preload=streams
            )
        except _Rehearsed as rehearsed:
            assert isinstance(rehearsed.response, response)
            return rehearsed.response

    def _problem(self, tx: Transaction, key: SagaKey, order: Order, raises: bool) -> str:
        """Does it; gives, or ``raises``, what is in the way."""
        try:
            aggregate = self.sagas.get(key.saga)
            if aggregate is None or tx.state(aggregate, key.saga_id).status is SagaStatus.NONE:
                raise self._not_found
            tx.do(aggregate, key.saga_id, order)
        except (NotFound, FailedPrecondition) as problem:
            if raises:
                raise
            return str(problem)
        return ""


def _at_step(order: Order, request: Any) -> Order:
    """The order for the step that the request names, where it names one."""
    step: str = getattr(request, "step", "")
    return replace(order, step=step) if step and not isinstance(order, Abort) else order


def _outcome(response: type[Message], key: SagaKey, problem: str) -> dict[str, str]:
    outcome = {"saga_id": key.saga_id, "problem": problem, "saga": key.saga}
    outcomes = response.DESCRIPTOR.fields_by_name["outcomes"].message_type
    assert outcomes is not None
    return {name: value for name, value in outcome.items() if name in outcomes.fields_by_name}
