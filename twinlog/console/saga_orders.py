"""What operators order sagas to do: first what it would do, then, once that was confirmed, the same for real."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from twinlog.console.page import Action, Form, Outcome, Query
from twinlog.console.services import Services, method_of
from twinlog.v1 import saga_service_pb2 as pb
from twinlog.v1.saga_service_pb2_grpc import SagaServiceStub

LIMIT = 50
"""Of a selection by filter, sagas that are done at once unless more are asked for."""
_SECONDS = 10.0


@dataclass(frozen=True)
class Order:
    name: str
    verb: str
    done: str
    what: str
    """What it does, for people."""
    request: Any
    """The type of its requests; one with a step can be for one of several that are awaited."""
    needs_reason: bool = True


ORDERS = {
    order.name: order
    for order in (
        Order(
            "retry",
            "Retry",
            "Retried",
            "Sends what is awaited once more, now.",
            pb.RetrySagasRequest,
            needs_reason=False,
        ),
        Order(
            "skip",
            "Skip",
            "Skipped",
            "No longer waits: the step counts as done or, while the saga is undone, as undone.",
            pb.SkipSagaStepsRequest,
        ),
        Order(
            "abort",
            "Abort",
            "Aborted",
            "Undoes what was done, step by step.",
            pb.AbortSagasRequest,
        ),
    )
}


@dataclass(frozen=True)
class Rehearsal:
    """What an order would do."""

    order: Order
    response: Any
    reason: str
    step: str
    limit: int
    request_id: str
    """For the order itself: sent twice, it is done once."""
    whole: bool
    """Whether it is for many sagas, by a filter."""

    @property
    def problems(self) -> list[pb.SagaOutcome]:
        """The sagas for which it would not be done."""
        return [each for each in self.response.outcomes if each.problem]


def actions(
    selected: Callable[[Services, Query], Awaitable[tuple[str, pb.SagaSelection]]],
) -> Mapping[str, Action]:
    """The actions of a page; ``selected``: the service, and those of its sagas that the page is about."""

    async def act(
        how: Callable[..., Awaitable[Outcome]], services: Services, query: Query, form: Form
    ) -> Outcome:
        order = ORDERS.get(form.get("order"))
        if order is None:
            return Outcome("There is no such order: retry, skip or abort.", ok=False)
        return await how(services, order, *await selected(services, query), form)

    return {"rehearse": partial(act, _rehearse), "do": partial(act, _do)}


async def _rehearse(
    services: Services, order: Order, service: str, selection: pb.SagaSelection, form: Form
) -> Outcome:
    """Says what an order would do, with a button that does it."""
    if order.needs_reason and not form.get("reason"):
        return Outcome(f"{order.verb} needs a reason: it is kept in the saga's log.", ok=False)
    answer = await _send(services, service, order, selection, form, dry_run=True)
    if answer.message is None:
        return Outcome(f"{order.verb} is not possible: {answer.problem}", ok=False)
    rehearsal = Rehearsal(
        order,
        answer.message,
        form.get("reason"),
        form.get("step"),
        _limit(form),
        str(uuid4()),
        selection.WhichOneof("by") == "filter",
    )
    applies = answer.message.applied > 0
    return Outcome(ok=applies, only_said=True, template="saga_rehearsal.html", model=rehearsal)


async def _do(
    services: Services, order: Order, service: str, selection: pb.SagaSelection, form: Form
) -> Outcome:
    """Does it, and says what came of it."""
    answer = await _send(services, service, order, selection, form, dry_run=False)
    if answer.message is None:
        return Outcome(f"{order.verb} failed: {answer.problem}", ok=False)
    applied, selected = answer.message.applied, answer.message.selected
    said = f"{order.done}." if selected == applied == 1 else f"{order.done} {applied} of {selected} sagas."
    if left := selected - len(answer.message.outcomes):
        said += f" {left} {'is' if left == 1 else 'are'} left: the limit was {_limit(form)}."
    return Outcome(said, ok=applied > 0)


async def _send(
    services: Services, service: str, order: Order, selection: pb.SagaSelection, form: Form, *, dry_run: bool
) -> Any:
    request = order.request(
        request_id=form.get("request_id"),
        selection=selection,
        reason=form.get("reason"),
        dry_run=dry_run,
        limit=_limit(form),
    )
    if "step" in request.DESCRIPTOR.fields_by_name:
        request.step = form.get("step")
    return await services.ask(
        service,
        lambda channel: getattr(SagaServiceStub(channel), method_of(request)),
        request,
        seconds=_SECONDS,
    )


def _limit(form: Form) -> int:
    limit = form.get("limit")
    return min(1000, max(1, int(limit))) if limit.isascii() and limit.isdigit() else LIMIT
