"""The pages: what can be tried, and one order as its saga runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from uuid import uuid4

from google.type.money_pb2 import Money

from saga_orchestrator.credit_saga import CREDIT_SAGA, saga_id
from shop.orders.v1 import order_pb2 as states
from shop.orders.v1.saga_mode_pb2 import (
    SAGA_MODE_CHOREOGRAPHY,
    SAGA_MODE_ORCHESTRATION,
    SAGA_MODE_UNSPECIFIED,
    SagaMode,
)
from shop.queries.v1.customer_query_service_pb2 import Customer
from shop.queries.v1.order_query_service_pb2 import Order
from stack.topology import CUSTOMER_SVC, ORDER_SVC, PROJECTOR, SAGA_ORCHESTRATOR
from stack.try_it import calls
from stack.try_it.picture import Picture, picture
from stack.try_it.scenarios import LIMIT, SCENARIOS, Scenario
from twinlog.console import Answer, Form, Outcome, Page, Query, Services, refused

_TEMPLATES = Path(__file__).with_name("templates")
_NAME = "Ada Lovelace"
_MOST_TRIES, _AGAIN_SECONDS = 400, 0.005
"""How often an order is cancelled that may not have been made yet."""
_KINDS = {
    states.ORDER_STATE_PENDING: "run",
    states.ORDER_STATE_APPROVED: "ok",
    states.ORDER_STATE_REJECTED: "bad",
    states.ORDER_STATE_CANCELLED: "undo",
}


class Mode(NamedTuple):
    """How sagas are run."""

    value: SagaMode.ValueType
    name: str
    text: str


MODES = (
    Mode(SAGA_MODE_CHOREOGRAPHY, "choreography", "Each service reacts to the other's log."),
    Mode(SAGA_MODE_ORCHESTRATION, "orchestration", "saga_orchestrator tells each service what to do."),
)


class ShownOrder(NamedTuple):
    """An order in the list or on its page."""

    id: str
    state: str
    kind: str
    total: str
    mode: str
    message: Order

    @classmethod
    def of(cls, order: Order) -> ShownOrder:
        return cls(
            order.order_id,
            states.OrderState.Name(order.state).removeprefix("ORDER_STATE_"),
            _KINDS.get(order.state, "idle"),
            calls.amount(order.total),
            _mode_name(order.saga_mode),
            order,
        )

    @property
    def written(self) -> str:
        """Its total, for a form."""
        return calls.written(self.message.total)

    @property
    def reason(self) -> str:
        """Why it was rejected; empty otherwise."""
        if not self.message.rejection_reason:
            return ""
        return str(states.RejectionReason.Name(self.message.rejection_reason)).removeprefix(
            "REJECTION_REASON_"
        )


class ShownCustomer(NamedTuple):
    """A customer in the list."""

    id: str
    name: str
    limit: str
    available: str
    share: float
    """Of the limit, from 0 to 1, that is held."""

    @classmethod
    def of(cls, customer: Customer) -> ShownCustomer:
        return cls(
            customer.customer_id,
            customer.name,
            calls.amount(customer.credit_limit),
            calls.amount(customer.available),
            calls.share(customer.reserved, customer.credit_limit),
        )


@dataclass(frozen=True)
class All:
    """The page with all that can be tried."""

    mode: str
    """The shop's; empty while order_svc does not answer."""
    orders: Sequence[ShownOrder]
    customers: Sequence[ShownCustomer]
    problems: Sequence[str]
    scenarios: Sequence[Scenario] = tuple(SCENARIOS.values())
    modes: Sequence[Mode] = MODES
    limit: str = LIMIT


@dataclass(frozen=True)
class Run:
    """One order and its saga so far."""

    order: ShownOrder
    picture: Picture
    customer: ShownCustomer | None

    @property
    def pending(self) -> bool:
        """Whether its saga has no answer yet."""
        return self.order.message.state == states.ORDER_STATE_PENDING

    @property
    def cancellable(self) -> bool:
        """Whether it can be taken back."""
        return self.order.message.state in (states.ORDER_STATE_PENDING, states.ORDER_STATE_APPROVED)

    @property
    def milliseconds(self) -> float | None:
        """From its creation to the event that ended its being PENDING; None while it is."""
        ended = f"Order{self.order.state.capitalize()}"
        return next((event.milliseconds for event in self.picture.events if event.type == ended), None)

    @property
    def other_mode(self) -> Mode:
        """The one that it was not run in."""
        return next(mode for mode in MODES if mode.name != self.order.mode)

    @property
    def more(self) -> str:
        """The URL of the console's own page of its saga: who owes what, and what may be done."""
        if self.order.mode == "orchestration":
            return f"/sagas/{CREDIT_SAGA.name}/{saga_id(self.order.id)}"
        return f"/story/{self.picture.events[0].address}" if self.picture.events else "/log"

    @property
    def owed_by(self) -> str:
        """The service that has to act next, while it is PENDING."""
        last = self.picture.events[-1].type if self.picture.events else ""
        if self.order.mode == "orchestration" and last in (
            "OrderCreated",
            "CreditReserved",
            "CreditReservationFailed",
        ):
            return SAGA_ORCHESTRATOR.name
        if last in ("CreditReserved", "CreditReservationFailed", "ApproveOrder", "RejectOrder"):
            return ORDER_SVC.name
        return CUSTOMER_SVC.name


@dataclass(frozen=True)
class Runs:
    """The page of an order, or of two side by side."""

    runs: Sequence[Run]
    orders_address: str
    queries_address: str
    missing: str = ""
    """Why one of them is not shown."""
    modes: Sequence[Mode] = field(default=MODES)


async def load_all(services: Services, query: Query) -> All:
    """What there is to try, and what was tried last."""
    mode, orders, customers = await asyncio.gather(
        calls.mode(services), calls.newest_orders(services), calls.newest_customers(services)
    )
    answers: Sequence[Answer[Any]] = (mode, orders, customers)
    if not any(each.ok for each in answers):
        raise refused("None of the shop's services has answered.", *answers)
    silent = dict.fromkeys(f"{each.service}: {each.problem}." for each in answers if not each.ok)
    return All(
        _mode_name(mode.message.saga_mode) if mode.message else "",
        [ShownOrder.of(each) for each in orders.message.orders] if orders.message else [],
        [ShownCustomer.of(each) for each in customers.message.customers] if customers.message else [],
        list(silent),
    )


async def load_order(services: Services, query: Query) -> Runs:
    """One order, and another beside it where the query has one."""
    ids = [query.get("order_id"), *query.all("beside")[:1]]
    tokens = {ids[0]: query.get("token")}
    found = await asyncio.gather(*(_run(services, id, tokens.get(id, "")) for id in ids))
    runs = [each for each in found if isinstance(each, Run)]
    failed = {id: each for id, each in zip(ids, found, strict=True) if isinstance(each, Answer)}
    missing = next((_missing(id, tokens.get(id, ""), each) for id, each in failed.items()), "")
    if not runs:
        raise refused(missing, *failed.values())
    return Runs(
        runs, services.addresses.get(ORDER_SVC.name, ""), services.addresses.get(PROJECTOR.name, ""), missing
    )


def _missing(order_id: str, token: str, answer: Answer[Any]) -> str:
    if answer.silent or not answer.reason.endswith("NOT_FOUND"):
        return f"Order {order_id} is not shown: {answer.service}: {answer.problem}"
    if token:  # only who made it has one
        return f"Order {order_id} was made, but {answer.service} does not show it: see the dead letters of its view."
    return f"Order {order_id} is not in the view of {answer.service}."


async def _run(services: Services, order_id: str, token: str) -> Run | Answer[Any]:
    """An order and its saga, or why it is not to be had."""
    answer = await calls.order(services, order_id, token)
    if answer.message is None:
        return answer
    order = answer.message.order
    events, customer = await asyncio.gather(
        calls.timeline(services, order_id), calls.customer(services, order.customer_id)
    )
    return Run(ShownOrder.of(order), picture(events), ShownCustomer.of(customer) if customer else None)


async def try_scenario(services: Services, query: Query, form: Form) -> Outcome:
    """Makes a customer and the order of a scenario, and shows it."""
    scenario = SCENARIOS.get(form.get("scenario"))
    limit = calls.money(LIMIT)
    total = calls.money(scenario.total) if scenario else None
    if scenario is None or limit is None or total is None:
        return Outcome("There is no such thing to try.", ok=False)
    payer = await _someone(services, limit, total, fits=scenario.ends != "REJECTED")
    if isinstance(payer, Outcome):
        return payer
    order_id = str(uuid4())
    created, cancelled = await asyncio.gather(
        calls.create_order(services, payer.customer_id, payer.total, _wanted_mode(form), order_id),
        _cancelled_at_once(services, order_id) if scenario.cancels else _nothing(),
    )
    for answer in (created, cancelled):
        if answer and answer.message is None:
            return _failed(answer)
    assert created.message
    return Outcome(to=_page_of(created.message.order_id, token=created.message.consistency_token))


async def place_order(services: Services, query: Query, form: Form) -> Outcome:
    """Makes the order that the form describes; the customer may be a new one."""
    total = calls.money(form.get("total"))
    if total is None:
        return Outcome("How much? An amount such as 12.34.", ok=False)
    customer_id = form.get("customer_id")
    if not customer_id:
        limit = calls.money(LIMIT)
        assert limit
        payer = await _someone(services, limit, total, fits=True)
        if isinstance(payer, Outcome):
            return payer
        customer_id = payer.customer_id
    created = await calls.create_order(services, customer_id, total, _wanted_mode(form))
    if created.message is None:
        return _failed(created)
    beside = {"beside": form.get("beside")} if form.get("beside") else {}
    return Outcome(to=_page_of(created.message.order_id, token=created.message.consistency_token, **beside))


async def make_customer(services: Services, query: Query, form: Form) -> Outcome:
    """Makes the customer that the form describes."""
    limit = calls.money(form.get("limit"))
    if limit is None:
        return Outcome("Which credit limit? An amount such as 15.00.", ok=False)
    made = await calls.create_customer(services, form.get("name"), limit)
    if made.message is None:
        return _failed(made)
    return Outcome(f"{form.get('name')} may owe {calls.amount(limit)}: choose them for an order below.")


async def cancel(services: Services, query: Query, form: Form) -> Outcome:
    """Takes an order back."""
    cancelled = await calls.cancel_order(services, form.get("order_id"))
    if cancelled.message is None:
        return _failed(cancelled)
    return Outcome("Cancelled. What was held for it is given back.")


async def switch_mode(services: Services, query: Query, form: Form) -> Outcome:
    """Sets the shop's mode."""
    mode = next((each for each in MODES if each.name == form.get("mode")), None)
    if mode is None:
        return Outcome("There is no such mode.", ok=False)
    answer = await calls.set_mode(services, mode.value)
    if answer.message is None:
        return _failed(answer)
    return Outcome(f"New orders are run in {mode.name}; those in flight finish as they began.")


class Payer(NamedTuple):
    """Who an order is for."""

    customer_id: str
    total: Money
    """What of the wanted total they can be asked for."""


async def _someone(services: Services, limit: Money, total: Money, *, fits: bool) -> Payer | Outcome:
    """A new customer; an earlier one while customer_svc is silent, so that its absence can be watched.

    ``fits``: whether the order is to be within the customer's free credit. Where no earlier one has that much, it is
    for what the one with the most has.
    """
    made = await calls.create_customer(services, _NAME, limit, calls.NEW_CUSTOMER_SECONDS)
    if made.message is not None:
        return Payer(made.message.customer_id, total)
    known = (await calls.newest_customers(services)).message
    if known is None or not known.customers:
        return _failed(made)
    free = {each.customer_id: calls.nanos(each.available) for each in known.customers}
    for each in known.customers:
        if (free[each.customer_id] >= calls.nanos(total)) == fits:
            return Payer(each.customer_id, total)
    richest = max(known.customers, key=lambda each: free[each.customer_id])
    return Payer(richest.customer_id, richest.available if fits and free[richest.customer_id] else total)


async def _cancelled_at_once(services: Services, order_id: str) -> Answer[Any]:
    """Takes an order back that is being made: the saga has hardly begun then."""
    for _ in range(_MOST_TRIES):
        answer = await calls.cancel_order(services, order_id)
        if answer.ok or not answer.reason.endswith("NOT_FOUND"):
            break
        await asyncio.sleep(_AGAIN_SECONDS)
    return answer


async def _nothing() -> None:
    return None


def _failed(answer: Answer[Any]) -> Outcome:
    return Outcome(f"{answer.service}: {answer.problem}", ok=False)


def _page_of(order_id: str, **parameters: str) -> str:
    return f"/try/orders/{order_id}?{urlencode(parameters)}"


def _wanted_mode(form: Form) -> SagaMode.ValueType:
    return next((mode.value for mode in MODES if mode.name == form.get("mode")), SAGA_MODE_UNSPECIFIED)


def _mode_name(mode: SagaMode.ValueType) -> str:
    return next((each.name for each in MODES if each.value == mode), "")


_ACTIONS = {
    "scenario": try_scenario,
    "order": place_order,
    "customer": make_customer,
    "cancel": cancel,
    "mode": switch_mode,
}
PAGES = [
    Page(
        "/try",
        "Try it",
        "try.html",
        load_all,
        navigation="Try it",
        key="t",
        icon="try",
        invites="An order by one click, in either mode.",
        actions=_ACTIONS,
        templates=_TEMPLATES,
    ),
    Page(
        "/try/orders/{order_id}",
        "Order",
        "try_order.html",
        load_order,
        actions=_ACTIONS,
        templates=_TEMPLATES,
    ),
]
