"""The edge of saga_orchestrator: shows the sagas, and lets operators intervene."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from saga_orchestrator.credit_saga import CREDIT_SAGAS, VERSIONS, saga_id
from saga_orchestrator.views import SagaRow
from shop.sagas.v1 import saga_service_pb2 as pb
from shop.sagas.v1.saga_service_pb2_grpc import SagaServiceServicer
from twinlog import (
    Abort,
    Clock,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Retry,
    SagaInstance,
    SagaStatus,
    Skip,
    Transaction,
    timestamp,
)
from twinlog.rpc import Checks, Commands, Context, PageTokens

NEWEST = 2**63 - 1
_MAX_AGE_SECONDS = 10**9
R = TypeVar("R", pb.RetrySagasResponse, pb.SkipSagaStepResponse, pb.AbortSagasResponse)
Find = Callable[[int], Awaitable[tuple[Sequence[str], int]]]
"""From the most ids wanted: the ids of up to that many matching sagas, and how many match."""


class SagaList(Protocol):
    """The list of sagas, as the service reads it."""

    async def list(self, status: int, before: int, limit: int) -> Sequence[SagaRow]:
        """Up to ``limit`` sagas that started before a position, newest first; status 0: all."""
        ...

    async def select(
        self, status: int, customer_id: str, started_before: datetime, limit: int
    ) -> tuple[Sequence[str], int]:
        """The ids of up to ``limit`` matching sagas, oldest first, and how many match; status 0: all not ended."""
        ...


class SagaNotFound(NotFound):
    """There is no such saga: the order is choreographed, unknown, or its saga has not begun yet."""

    reason = "SAGA_NOT_FOUND"


class SagaService(SagaServiceServicer):
    """shop.sagas.v1.SagaService."""

    def __init__(self, commands: Commands, views: SagaList, pages: PageTokens, clock: Clock) -> None:
        self._commands = commands
        self._views = views
        self._pages = pages
        self._clock = clock

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        checks = Checks()
        key = request.WhichOneof("key")
        if key is None:
            raise InvalidArgument({"key": "is missing: give saga_id or order_id"})
        given = checks.uuid(key, getattr(request, key))
        checks.done()
        id = given if key == "saga_id" else saga_id(given)
        return pb.GetSagaResponse(saga=await self._saga(id))

    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        checks = Checks()
        status = checks.enum("status", request.status, pb.SagaStatus, required=False)
        size = checks.page_size("page_size", request.page_size)
        filters = f"sagas/{status}"
        last = checks.page_token("page_token", request.page_token, self._pages, filters, (int,))
        checks.done()
        rows = await self._views.list(status, int(last[0]) if last else NEWEST, size + 1)
        return pb.ListSagasResponse(
            sagas=map(_listed, rows[:size]),
            next_page_token=self._pages.issue(filters, (rows[size - 1].started_position,))
            if len(rows) > size
            else "",
        )

    async def RetrySagas(self, request: pb.RetrySagasRequest, context: Context) -> pb.RetrySagasResponse:
        return await self._intervene(request, Retry, pb.RetrySagasResponse, context)

    async def SkipSagaStep(
        self, request: pb.SkipSagaStepRequest, context: Context
    ) -> pb.SkipSagaStepResponse:
        return await self._intervene(request, Skip, pb.SkipSagaStepResponse, context)

    async def AbortSagas(self, request: pb.AbortSagasRequest, context: Context) -> pb.AbortSagasResponse:
        return await self._intervene(request, Abort, pb.AbortSagasResponse, context)

    async def _intervene(
        self, request: Any, command: type[Retry | Skip | Abort], response: type[R], context: Context
    ) -> R:
        """Gives the same command to every selected saga, in one transaction."""
        checks = Checks()
        if command is not Retry or request.reason:
            checks.name("reason", request.reason)
        limit = checks.page_size("limit", request.limit)
        find = self._selection(checks, request.selection)
        self._commands.check(request, checks, response)  # before the list is read
        ids, selected = await find(limit)
        if request.dry_run:
            return response(selected=selected)
        given = command(request.reason, self._clock.now())
        one_by_name = request.selection.WhichOneof("by") != "filter"

        def intervene(tx: Transaction) -> R:
            outcomes = [
                pb.SagaOutcome(saga_id=id, problem=_problem(tx, id, given, one_by_name)) for id in ids
            ]
            applied = sum(not outcome.problem for outcome in outcomes)
            return response(selected=selected, applied=applied, outcomes=outcomes)

        streams = [(CREDIT_SAGAS, id) for id in ids]
        return await self._commands.execute(request, context, checks, intervene, response, preload=streams)

    def _selection(self, checks: Checks, selection: pb.SagaSelection) -> Find:
        """A search for the ids of the selected sagas, up to a limit, and for how many there are."""
        by = selection.WhichOneof("by")
        if by == "filter":
            return self._filter(checks, selection.filter)
        id = ""
        if by is None:
            checks.violate("selection", "is missing: give saga_id, order_id or filter")
        else:
            given = checks.uuid(f"selection.{by}", getattr(selection, by))
            id = given if by == "saga_id" else saga_id(given)

        async def one(_limit: int) -> tuple[Sequence[str], int]:
            return [id], 1

        return one

    def _filter(self, checks: Checks, chosen: pb.SagaFilter) -> Find:
        status = checks.enum("selection.filter.status", chosen.status, pb.SagaStatus, required=False)
        customer = checks.uuid("selection.filter.customer_id", chosen.customer_id, required=False)
        age = timedelta(seconds=min(max(chosen.older_than.seconds, 0), _MAX_AGE_SECONDS))

        async def matching(limit: int) -> tuple[Sequence[str], int]:
            return await self._views.select(status, customer, self._clock.now() - age, limit)

        return matching

    async def _saga(self, id: str) -> pb.Saga:
        """Read from the log itself, so that it is up to date."""
        events, instance = await self._commands.folded(CREDIT_SAGAS, id)
        if not events:
            raise SagaNotFound
        saga = _shown(id, instance)
        saga.started_at.FromDatetime(events[0].recorded_at)
        saga.updated_at.FromDatetime(events[-1].recorded_at)
        return saga


def _problem(tx: Transaction, id: str, command: Retry | Skip | Abort, raises: bool) -> str:
    """Does the command; gives, or ``raises``, what is in the way."""
    try:
        if tx.state(CREDIT_SAGAS, id).status is SagaStatus.NONE:
            raise SagaNotFound
        tx.do(CREDIT_SAGAS, id, command)
    except (SagaNotFound, FailedPrecondition) as problem:
        if raises:
            raise
        return str(problem)
    return ""


def _listed(row: SagaRow) -> pb.Saga:
    return pb.Saga(
        saga_id=row.saga_id,
        order_id=row.order_id,
        customer_id=row.customer_id,
        definition_version=row.definition_version,
        status=row.status,
        reason=row.reason,
        started_at=timestamp(row.started_at),
        updated_at=timestamp(row.updated_at),
    )


def _shown(id: str, instance: SagaInstance) -> pb.Saga:
    order = instance.context.trigger
    return pb.Saga(
        saga_id=id,
        order_id=order.order_id,
        customer_id=order.customer_id,
        definition_version=instance.version,
        status=_status(instance),
        steps=_steps(instance),
        remaining=_remaining(instance),
        reason=instance.reason,
    )


def _status(instance: SagaInstance) -> pb.SagaStatus.ValueType:
    if instance.needs_attention:
        return pb.SAGA_STATUS_NEEDS_ATTENTION
    return pb.SagaStatus.Value(f"SAGA_STATUS_{instance.status.name}")


def _steps(instance: SagaInstance) -> Sequence[pb.SagaStep]:
    table, shown = VERSIONS[instance.version], []
    for number, (step, state) in enumerate(zip(table.steps, instance.steps, strict=True)):
        awaited = number == instance.current
        shown.append(
            pb.SagaStep(
                name=step.name,
                status=pb.StepStatus.Value(f"STEP_STATUS_{state.name}"),
                attempts=instance.attempts if awaited else 0,
                deadline=timestamp(instance.deadline) if awaited and instance.deadline else None,
            )
        )
    return shown


def _remaining(instance: SagaInstance) -> Sequence[str]:
    """What is still to happen, in words."""
    steps = VERSIONS[instance.version].steps
    names = [step.name for step in steps]
    if instance.status is SagaStatus.RUNNING and instance.current is not None:
        return names[instance.current :]
    if instance.status is not SagaStatus.COMPENSATING or instance.current is None:
        return []
    if instance.current == len(names):
        return ["reject order"]
    undo = [f"undo: {names[number]}" for number in range(instance.current, -1, -1) if steps[number].undo]
    return undo if instance.interrupted else [*undo, "reject order"]
