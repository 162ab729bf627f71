"""Scripts of commands that any shop can play, in any mode, and what they come to.

After each command the shop comes to rest, so that the outcome of races between commands is the same in every
play; what races with the saga itself (a cancellation in flight, a deadline) is one command of its own. Compared
are: what each command answered, the state and the reason of every order, and every customer's limit and credit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from uuid import NAMESPACE_OID, uuid4, uuid5

from hypothesis import strategies as st

from shop.customers.v1.customer_service_pb2 import ChangeCreditLimitRequest, CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CancelOrderRequest, CreateOrderRequest
from tests.controls import Mode, wire

Answer = str
"""``OK``, or the reason of the refusal."""


class Outcome(NamedTuple):
    """What a play came to, in the order in which the script names things."""

    answers: list[Answer]
    orders: list[tuple[int, int]]
    """State and reason of each."""
    customers: list[tuple[int, int]]
    """Limit and reserved credit of each, in nanos."""


class Stage(Protocol):
    """A shop that a script can be played on."""

    async def call(self, request: Any) -> Answer:
        """Sends a command and gives its answer."""
        ...

    async def settle(self) -> None:
        """Returns when the shop is at rest."""
        ...

    async def order(self, order_id: str) -> tuple[int, int]:
        """State and reason."""
        ...

    async def customer(self, customer_id: str) -> tuple[int, int]:
        """Limit and reserved credit, in nanos."""
        ...


class SlowStage(Stage, Protocol):
    """One that can also be disturbed."""

    async def call_at_once(self, requests: Sequence[Any]) -> Sequence[Answer]:
        """Sends commands so that nothing comes between them."""
        ...

    async def call_unanswered(self, request: Any) -> Answer:
        """Sends a command and keeps customer_svc away until the deadline has passed."""
        ...


# --- commands: numbers name customers and orders in the order of their creation, as far as there are any ---


@dataclass(frozen=True)
class NewCustomer:
    limit: int


@dataclass(frozen=True)
class NewLimit:
    customer: int
    limit: int
    currency: str = "EUR"


@dataclass(frozen=True)
class NewOrder:
    customer: int
    """-1: one that does not exist."""
    total: int
    currency: str = "EUR"


@dataclass(frozen=True)
class Cancel:
    order: int


@dataclass(frozen=True)
class CancelledInFlight:
    """An order that is cancelled before anybody has answered for its credit."""

    customer: int
    total: int


@dataclass(frozen=True)
class Unanswered:
    """An order whose credit nobody answers for in time."""

    customer: int
    total: int


@dataclass(frozen=True)
class Repeat:
    """An earlier request, sent again as it was."""

    request: int


Command = NewCustomer | NewLimit | NewOrder | Cancel | CancelledInFlight | Unanswered | Repeat

_SMALL = st.integers(0, 9)
_CUSTOMER = st.integers(-1, 3)
_TOTAL = st.integers(1, 12)
_CURRENCY = st.sampled_from(["EUR", "EUR", "EUR", "USD"])
CALM: st.SearchStrategy[Command] = st.one_of(
    st.builds(NewCustomer, st.integers(0, 15)),
    st.builds(NewLimit, _CUSTOMER, st.integers(0, 20), _CURRENCY),
    st.builds(NewOrder, _CUSTOMER, _TOTAL, _CURRENCY),
    st.builds(NewOrder, _CUSTOMER, _TOTAL),
    st.builds(Cancel, _SMALL),
    st.builds(Repeat, _SMALL),
)
"""Commands that every stage can play."""
ALL: st.SearchStrategy[Command] = st.one_of(
    CALM, st.builds(CancelledInFlight, _CUSTOMER, _TOTAL), st.builds(Unanswered, _CUSTOMER, _TOTAL)
)
"""Commands that a stage plays that can be disturbed."""


def scripts(of: st.SearchStrategy[Command], longest: int) -> st.SearchStrategy[list[Command]]:
    """Scripts that begin with a customer who can afford something."""
    return st.lists(of, max_size=longest).map(lambda commands: [NewCustomer(15), *commands])


# --- playing -----------------------------------------------------------------------------------------------


@dataclass
class _Play:
    stage: Any
    mode_of: Callable[[int], Mode]
    salt: str = field(default_factory=lambda: str(uuid4()))
    """Ids are new in every play, so that plays can share a shop."""
    sent: list[Any] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    customers: list[str] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)

    async def run(self, script: Sequence[Command]) -> Outcome:
        for command in script:
            await self.do(command)
            await self.stage.settle()
        return Outcome(
            self.answers,
            [await self.stage.order(id) for id in self.orders],
            [await self.stage.customer(id) for id in self.customers],
        )

    async def do(self, command: Command) -> None:
        match command:
            case NewCustomer(limit):
                await self.send(self.new_customer(limit))
            case NewLimit(customer, limit, currency):
                id = self.named(self.customers, customer)
                await self.send(
                    ChangeCreditLimitRequest(
                        request_id=self.id("request", len(self.sent)),
                        customer_id=id,
                        credit_limit=wire(str(limit), currency),
                    )
                )
            case NewOrder(customer, total, currency):
                await self.send(self.new_order(customer, total, currency))
            case Cancel(order):
                await self.send(self.cancellation(self.named(self.orders, order)))
            case CancelledInFlight(customer, total):
                create = self.new_order(customer, total)
                self.sent.append(create)
                cancel = self.cancellation(create.order_id)
                self.sent.append(cancel)
                self.answers += await self.stage.call_at_once([create, cancel])
            case Unanswered(customer, total):
                create = self.new_order(customer, total)
                self.sent.append(create)
                self.answers.append(await self.stage.call_unanswered(create))
            case Repeat(number):
                again = self.sent[number % len(self.sent)]
                self.answers.append(await self.stage.call(again))

    async def send(self, request: Any) -> None:
        self.sent.append(request)
        self.answers.append(await self.stage.call(request))

    def new_customer(self, limit: int) -> CreateCustomerRequest:
        self.customers.append(self.id("customer", len(self.customers)))
        return CreateCustomerRequest(
            request_id=self.id("request", len(self.sent)),
            customer_id=self.customers[-1],
            name="Ada",
            credit_limit=wire(str(limit)),
        )

    def new_order(self, customer: int, total: int, currency: str = "EUR") -> CreateOrderRequest:
        number = len(self.orders)
        self.orders.append(self.id("order", number))
        return CreateOrderRequest(
            request_id=self.id("request", len(self.sent)),
            order_id=self.orders[-1],
            customer_id=self.named(self.customers, customer),
            total=wire(str(total), currency),
            saga_mode=self.mode_of(number),
        )

    def cancellation(self, order_id: str) -> CancelOrderRequest:
        return CancelOrderRequest(request_id=self.id("request", len(self.sent)), order_id=order_id)

    def named(self, ids: Sequence[str], number: int) -> str:
        return ids[number % len(ids)] if ids and number >= 0 else self.id("nobody", 0)

    def id(self, kind: str, number: int) -> str:
        return str(uuid5(NAMESPACE_OID, f"{self.salt} {kind} {number}"))


async def play(stage: Stage, script: Sequence[Command], mode_of: Callable[[int], Mode]) -> Outcome:
    """Plays a script; ``mode_of`` gives the mode of each order by its number."""
    return await _Play(stage, mode_of).run(script)
