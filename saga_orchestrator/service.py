"""The edge of saga_orchestrator: shows the sagas."""

from __future__ import annotations

from collections.abc import Sequence

from saga_orchestrator.credit_saga import CREDIT_SAGA, CREDIT_SAGAS, saga_id
from saga_orchestrator.views import SagaRow, SagaViews
from shop.sagas.v1 import saga_service_pb2 as pb
from shop.sagas.v1.saga_service_pb2_grpc import SagaServiceServicer
from twinlog.errors import InvalidArgument, NotFound
from twinlog.event import StreamId
from twinlog.log import Log, Wanted
from twinlog.paging import PageTokens
from twinlog.rpc import Context
from twinlog.saga import Instance, Status
from twinlog.schema import Schema
from twinlog.times import timestamp
from twinlog.validation import Checks

NEWEST = 2**63 - 1


class SagaNotFound(NotFound):
    """There is no such saga: the order is choreographed, unknown, or its saga has not begun yet."""

    reason = "SAGA_NOT_FOUND"


class SagaService(SagaServiceServicer):
    """shop.sagas.v1.SagaService."""

    def __init__(self, log: Log, views: SagaViews, pages: PageTokens) -> None:
        self._log = log
        self._views = views
        self._pages = pages
        self._schema = Schema()

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
        last = checks.page_token("page_token", request.page_token, self._pages, filters)
        checks.done()
        rows = await self._views.list(status, int(last[0]) if last else NEWEST, size + 1)
        return pb.ListSagasResponse(
            sagas=map(_listed, rows[:size]),
            next_page_token=self._pages.issue(filters, (rows[size - 1].started_position,))
            if len(rows) > size
            else "",
        )

    async def _saga(self, id: str) -> pb.Saga:
        """Read from the log itself: as new as can be."""
        (history,) = await self._log.load([Wanted(StreamId(CREDIT_SAGAS.name, id))])
        if not history.events:
            raise SagaNotFound
        instance = CREDIT_SAGAS.initial
        for event in history.events:
            instance = CREDIT_SAGAS.fold(self._schema.decode(event), instance)
        saga = _shown(id, instance)
        saga.started_at.FromDatetime(history.events[0].recorded_at)
        saga.updated_at.FromDatetime(history.events[-1].recorded_at)
        return saga


def _listed(row: SagaRow) -> pb.Saga:
    return pb.Saga(
        saga_id=row.saga_id,
        order_id=row.order_id,
        customer_id=row.customer_id,
        definition_version=row.definition_version,
        status=row.status,  # type: ignore[arg-type]
        reason=row.reason,
        started_at=timestamp(row.started_at),
        updated_at=timestamp(row.updated_at),
    )


def _shown(id: str, instance: Instance) -> pb.Saga:
    order = instance.facts.trigger
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


def _status(instance: Instance) -> pb.SagaStatus.ValueType:
    if instance.needs_attention:
        return pb.SAGA_STATUS_NEEDS_ATTENTION
    return pb.SagaStatus.Value(f"SAGA_STATUS_{instance.status.name}")


def _steps(instance: Instance) -> Sequence[pb.SagaStep]:
    shown = []
    for number, (step, state) in enumerate(zip(CREDIT_SAGA.steps, instance.steps, strict=True)):
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


def _remaining(instance: Instance) -> Sequence[str]:
    """What still has to happen, in words."""
    names = [step.name for step in CREDIT_SAGA.steps]
    if instance.status is Status.RUNNING and instance.current is not None:
        return names[instance.current :]
    if instance.status is not Status.COMPENSATING or instance.current is None:
        return []
    if instance.current == len(names):
        return ["reject order"]
    undo = [
        f"undo: {names[number]}"
        for number in range(instance.current, -1, -1)
        if CREDIT_SAGA.steps[number].undo
    ]
    return undo if instance.interrupted else [*undo, "reject order"]
