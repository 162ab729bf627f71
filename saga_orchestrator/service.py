"""The edge of saga_orchestrator: shows the sagas, and lets operators intervene."""

from __future__ import annotations

from typing import Any, TypeVar

from saga_orchestrator.credit_saga import CREDIT_SAGA, CREDIT_SAGAS, saga_id
from saga_orchestrator.views import SagaRow, SagaViews
from shop.sagas.v1 import saga_service_pb2 as pb
from shop.sagas.v1.saga_service_pb2_grpc import SagaServiceServicer
from twinlog import Abort, Clock, InvalidArgument, NotFound, Retry, Skip, timestamp
from twinlog.rpc import (
    NOT_ENDED,
    Checks,
    ChosenSagas,
    Commands,
    Context,
    FindSagas,
    FoundSaga,
    PageTokens,
    SagaKey,
    SagaList,
    SagaOperations,
    SelectedSagas,
    moment_of,
)
from twinlog.v1.saga_service_pb2 import SagaStatus

R = TypeVar("R", pb.RetrySagasResponse, pb.SkipSagaStepResponse, pb.AbortSagasResponse)
CREDIT = CREDIT_SAGA.name


class SagaNotFound(NotFound):
    """There is no such saga: the order is choreographed, unknown, or its saga has not begun yet."""

    reason = "SAGA_NOT_FOUND"


class SagaService(SagaServiceServicer):
    """shop.sagas.v1.SagaService."""

    def __init__(
        self, commands: Commands, views: SagaViews, sagas: SagaList, pages: PageTokens, clock: Clock
    ) -> None:
        self._sagas = SagaOperations(commands, [CREDIT_SAGAS], clock, not_found=SagaNotFound)
        self._views, self._list = views, sagas
        self._pages, self._clock = pages, clock

    async def GetSaga(self, request: pb.GetSagaRequest, context: Context) -> pb.GetSagaResponse:
        checks = Checks()
        key = request.WhichOneof("key")
        if key is None:
            raise InvalidArgument({"key": "is missing: give saga_id or order_id"})
        given = checks.uuid(key, getattr(request, key))
        as_of = moment_of(checks, "as_of", request.as_of)
        checks.done()
        id = given if key == "saga_id" else saga_id(given)
        # Read from the log itself, so that it is up to date.
        return pb.GetSagaResponse(saga=_shown(await self._sagas.get(SagaKey(CREDIT, id), as_of)))

    async def ListSagas(self, request: pb.ListSagasRequest, context: Context) -> pb.ListSagasResponse:
        checks = Checks()
        status = checks.enum("status", request.status, pb.SagaStatus, required=False)
        page = checks.page(request, self._pages, f"sagas/{status}")
        checks.done()
        rows = await self._views.list(status, page.before, page.limit)
        rows, more = page.of(rows, lambda row: row.started_position)
        return pb.ListSagasResponse(sagas=map(_listed, rows), next_page_token=more)

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
        return await self._sagas.intervene(
            request,
            context,
            command,
            lambda checks: self._selection(checks, request.selection),
            response,
            rehearse=False,
        )

    def _selection(self, checks: Checks, selection: pb.SagaSelection) -> FindSagas:
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

        async def one(_limit: int) -> SelectedSagas:
            return SelectedSagas([SagaKey(CREDIT, id)], 1)

        return one

    def _filter(self, checks: Checks, chosen: pb.SagaFilter) -> FindSagas:
        status = checks.enum("selection.filter.status", chosen.status, pb.SagaStatus, required=False)
        customer = checks.uuid("selection.filter.customer_id", chosen.customer_id, required=False)
        age = checks.age("selection.filter.older_than", chosen.older_than)
        statuses = frozenset({SagaStatus.ValueType(status)}) if status else NOT_ENDED
        wanted = ChosenSagas(statuses, self._clock.now() - age, subject=customer)
        return lambda limit: self._list.select(wanted, limit)


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


def _shown(found: FoundSaga) -> pb.Saga:
    shown = found.shown
    return pb.Saga(
        saga_id=shown.saga_id,
        order_id=found.instance.context.trigger.order_id,
        customer_id=shown.subject,
        definition_version=shown.version,
        status=pb.SagaStatus.ValueType(shown.status),
        steps=map(_step, shown.steps),
        remaining=shown.remaining,
        reason=shown.reason,
        started_at=shown.started_at,
        updated_at=shown.updated_at,
    )


def _step(step: Any) -> pb.SagaStep:
    due = next((due for due in ("deadline", "next_retry") if step.HasField(due)), None)
    return pb.SagaStep(
        name=step.name,
        status=pb.StepStatus.ValueType(step.status),
        attempts=step.attempts,
        deadline=getattr(step, due) if due else None,
    )
