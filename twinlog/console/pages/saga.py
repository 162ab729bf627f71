"""One saga: where it stands in its table, what it waits for and who owes that, its story, and what may be done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from twinlog.console import saga_orders
from twinlog.console.answers import Answer
from twinlog.console.looks import Look, Said
from twinlog.console.owed import Owed, owed
from twinlog.console.page import Page, Query, missing, refused
from twinlog.console.saga_diagram import Diagram, diagram
from twinlog.console.saga_words import State, saga_state
from twinlog.console.services import Services, seconds_at_once
from twinlog.console.story_view import StoryView, view_of
from twinlog.v1 import inspection_pb2 as inspection
from twinlog.v1 import saga_service_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub
from twinlog.v1.saga_service_pb2_grpc import SagaServiceStub

_MOST_EVENTS = 100
_SECONDS = 1.0
"""How long the saga's service may take: it asks the owners of what is awaited for most of that."""
_UNDER_WAY = (pb.SAGA_STATUS_RUNNING, pb.SAGA_STATUS_COMPENSATING, pb.SAGA_STATUS_NEEDS_ATTENTION)


@dataclass(frozen=True)
class SagaPage:
    service: str
    address: str
    saga: pb.Saga
    table: inspection.SagaTable | None
    diagram: Diagram | None
    owed: Sequence[Owed]
    story: StoryView
    at: datetime = field(compare=False)
    problem: str = ""
    """Why this is not the newest; empty where it is."""

    @property
    def state(self) -> State:
        return saga_state(self.saga.status)

    def of_table(self, step: pb.SagaStep) -> inspection.SagaTableStep:
        """A step, as the table says it."""
        steps = self.table.steps if self.table else []
        return next(
            (each for each in steps if each.name == step.name), inspection.SagaTableStep(name=step.name)
        )

    @property
    def orders(self) -> Sequence[saga_orders.Order]:
        return [*saga_orders.ORDERS.values()] if self.saga.status in _UNDER_WAY else []


async def load(services: Services, query: Query) -> SagaPage:
    """One saga. Raises Gone, Unanswered."""
    look = await services.look()
    name, saga_id = query.get("saga"), query.get("saga_id")
    said = _owner(look, name)
    tables = [each for each in said.described.saga_tables if each.saga == name] if said.described else []
    stream = inspection.GetStreamRequest(stream=f"{tables[0].aggregate}/{saga_id}", newest=_MOST_EVENTS)
    answer, story = await asyncio.gather(
        _saga(services, said.service, _asked(look, name, saga_id)),
        _story(services, look, said.service, stream, tables),
    )
    if answer.message is None:
        return _without(services, query, said, answer)
    saga = answer.message.saga
    table = next((each for each in tables if each.version == saga.version), None)
    look = await services.look()  # newer than what the saga's service could find out
    answers = [owed(look, each) for each in saga.awaited]
    page = SagaPage(
        said.service,
        said.address,
        saga,
        table,
        diagram(table, saga) if table else None,
        answers,
        story,
        datetime.now(UTC),
    )
    services.keep(query.path, replace(page, story=story.without_states()))
    return page


async def _saga(services: Services, service: str, request: pb.GetSagaRequest) -> Answer[pb.GetSagaResponse]:
    """The saga; what the owners of what is awaited say of it is not waited for where the page is to be seen at once."""

    async def ask() -> Answer[pb.GetSagaResponse]:
        return await services.ask(service, lambda c: SagaServiceStub(c).GetSaga, request, seconds=_SECONDS)

    moment = seconds_at_once()
    if moment is None or request.owners_unasked:
        return await ask()
    with_owners = asyncio.create_task(ask())
    try:
        if (await asyncio.wait([with_owners], timeout=moment))[0]:
            return with_owners.result()
    finally:
        with_owners.cancel()
        await asyncio.gather(with_owners, return_exceptions=True)
    request.owners_unasked = True
    return await ask()


def _asked(look: Look, saga: str, saga_id: str) -> pb.GetSagaRequest:
    """Where somebody is silent, this page knows: the saga's service is not to wait for them as well."""
    silent = any(said.silent_since for said in look.services.values())
    return pb.GetSagaRequest(saga_id=saga_id, saga=saga, owners_unasked=silent)


async def _story(
    services: Services,
    look: Look,
    service: str,
    stream: inspection.GetStreamRequest,
    tables: Sequence[inspection.SagaTable],
) -> StoryView:
    events = await services.ask(
        service, lambda c: InspectionServiceStub(c).GetStream, stream, seconds=_SECONDS
    )
    return await view_of(services, look, events.message.events if events.message else (), tables)


def _owner(look: Look, saga: str) -> Said:
    for said in look.services.values():
        if said.described and saga in {table.saga for table in said.described.saga_tables}:
            return said
    raise missing(look, f"No service that has answered has a saga {saga}.")


def _without(services: Services, query: Query, said: Said, answer: Answer[Any]) -> SagaPage:
    """The last that is known of a saga whose service does not tell. Raises Gone, Unanswered."""
    last = services.kept(SagaPage, query.path)
    if last is None or not answer.silent:
        saga, saga_id = query.get("saga"), query.get("saga_id")
        raise refused(f"{said.service} has no saga {saga} with the id {saga_id}: {answer.problem}.", answer)
    return replace(last, problem=f"{said.service} does not tell: {answer.problem}.")


async def _one(services: Services, query: Query) -> tuple[str, pb.SagaSelection]:
    name = query.get("saga")
    said = _owner(await services.look(), name)
    return said.service, pb.SagaSelection(saga=name, saga_id=query.get("saga_id"))


PAGES = [
    Page(
        "/sagas/{saga}/{saga_id:path}",
        "Saga {saga_id}",
        "saga.html",
        load,
        actions=saga_orders.actions(_one),
    )
]
