"""What clients do: a script from the seed, played through the services' own edges over a network that may fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from google.protobuf.message import Message
from google.type.money_pb2 import Money

from shop.customers.v1 import customer_service_pb2 as customers
from shop.orders.v1 import order_service_pb2 as orders
from shop.orders.v1.saga_mode_pb2 import (
    SAGA_MODE_CHOREOGRAPHY,
    SAGA_MODE_ORCHESTRATION,
    SAGA_MODE_UNSPECIFIED,
)
from tests.simulation.faults import FAULTY_UNTIL
from tests.simulation.loop import Life, SimulatedLoop
from tests.simulation.model import CANCELLED, NONE, Model, check
from tests.simulation.network import answered, latency
from tests.simulation.ports import SeededIds
from twinlog import TwinlogError, Unavailable
from twinlog.rpc.context import ACTOR_KEY, CORRELATION_KEY

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{23}([0-9a-f]{4})")
MODES = (SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION)


@dataclass(frozen=True)
class Call:
    """One command of a client, and how patient it is."""

    at: float
    method: str
    request: Any
    correlation_id: str
    patience: float
    """Seconds that it waits for one answer."""
    actor: str = "client"

    @property
    def service(self) -> str:
        """Who takes it."""
        return "customer_svc" if "Cust" in self.method or "Limit" in self.method else "order_svc"

    def __str__(self) -> str:
        return _UUID.sub(r"\1", f"{self.method} {' '.join(str(self.request).split())}")


@dataclass(frozen=True)
class Context:
    """As much of a call's context as the edges read."""

    call: Call

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return ((CORRELATION_KEY, self.call.correlation_id), (ACTOR_KEY, self.call.actor))

    def time_remaining(self) -> float:
        return self.call.patience


# --- the script ---


def script(chance: Random) -> list[Call]:
    """The commands of one seed, in order of time."""
    return _Script(chance).calls


@dataclass
class _Script:
    chance: Random
    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        chance = self.chance
        self._ids = SeededIds(chance)
        buyers = [self._id() for _ in range(chance.choice((1, 1, 2)))]
        for buyer in buyers:
            new = customers.CreateCustomerRequest(customer_id=buyer, name="Ada", credit_limit=_money(100))
            self._add(chance.random() * 0.5, "CreateCustomer", new, always=True)
        placed: list[tuple[str, float]] = []
        for _ in range(chance.randint(2, 7)):
            at = chance.uniform(0.1, FAULTY_UNTIL - 2)
            order = self._id()
            self._create(at, order, chance.choice(buyers))
            placed.append((order, at))
        for order, at in placed:
            if chance.random() < 0.5:
                cancel = orders.CancelOrderRequest(order_id=order)
                self._add(at + chance.choice((0.01, 0.1, 1, 4)) * chance.random(), "CancelOrder", cancel)
        for _ in range(chance.choice((0, 0, 1, 2))):
            limit = _money(chance.choice((10, 50, 100, 200)))
            request = customers.ChangeCreditLimitRequest(
                customer_id=chance.choice(buyers), credit_limit=limit
            )
            self._add(chance.uniform(0.5, FAULTY_UNTIL - 2), "ChangeCreditLimit", request)
        for _ in range(chance.choice((0, 1, 2))):
            switch = orders.SetSagaModeRequest(saga_mode=chance.choice(MODES))
            self._add(chance.uniform(0.0, FAULTY_UNTIL - 2), "SetSagaMode", switch)
        self.calls.sort(key=lambda call: call.at)

    def _create(self, at: float, order: str, buyer: str) -> None:
        chance = self.chance
        if chance.random() < 0.05:
            buyer = self._id()  # nobody
        mode = chance.choice((SAGA_MODE_UNSPECIFIED, *MODES))
        total = _money(chance.choice((10, 30, 60, 100, 150)))
        request = orders.CreateOrderRequest(order_id=order, customer_id=buyer, total=total, saga_mode=mode)
        self._add(at, "CreateOrder", request, actor="chooser" if mode else "client")
        if request.request_id and chance.random() < 0.25:
            request.order_id = ""  # the server makes one

    def _add(
        self, at: float, method: str, request: Any, *, always: bool = False, actor: str = "client"
    ) -> None:
        if method != "SetSagaMode" and (always or self.chance.random() < 0.65):
            request.request_id = self._id()
        patience = self.chance.choice((0.05, 0.5, 2.0, 5.0))
        self.calls.append(Call(at, method, request, self._id(), patience, actor))

    def _id(self) -> str:
        return str(self._ids.uuid7())


def _money(units: int) -> Money:
    return Money(currency_code="EUR", units=units)


# --- the clients ---


class Clients:
    """Plays calls: each is repeated under its request id until its outcome is known; without one it is sent once."""

    def __init__(
        self,
        loop: SimulatedLoop,
        chance: Random,
        model: Model,
        edge: Callable[[str], tuple[Life, Any] | None],
        trace: Callable[[str, str], None],
    ) -> None:
        """``edge`` chooses a replica of a service; None: none answers."""
        self._loop = loop
        self._chance = chance
        self._model = model
        self._edge = edge
        self._trace = trace
        self._refused: list[Call] = []
        self._waiting = 0

    def play(self, calls: Sequence[Call]) -> None:
        """Starts every call at its time."""
        for call in calls:
            self._waiting += 1
            self._loop.call_later(call.at, partial(self._start, call), context=self._loop.nobody)

    @property
    def done(self) -> bool:
        """Whether every outcome is known, or given up."""
        return not self._waiting

    def at_rest(self) -> None:
        """Checks that what was refused has had no effect, and that nothing has had two."""
        for call in self._refused:
            check(not self._done(call), "refusals", f"refused, and done: {call}")

    def _done(self, call: Call) -> bool:
        return bool(self._model.requested.get(call.correlation_id))

    def _start(self, call: Call) -> None:
        self._loop.start(self._guarded(call))

    async def _guarded(self, call: Call) -> None:
        try:
            await self._insist(call)
        except Exception as error:
            self._model.failed(error)
        self._waiting -= 1

    async def _insist(self, call: Call) -> None:
        self._trace("client", str(call))
        unknown = False  # what became of an earlier try
        while True:
            done = self._done(call)
            try:
                response = await self._send(call)
            except (Unavailable, TimeoutError) as error:
                if call.method != "SetSagaMode" and not call.request.request_id:
                    self._trace("client", f"gives up on {call.method}: {type(error).__name__}")
                    return
                unknown = True
                await asyncio.sleep(self._chance.random())
            except TwinlogError as error:
                self._trace("client", f"{call.method} is refused: {error}")
                check(not done, "refusals", f"done, and refused: {call}")
                if not unknown:  # else the earlier try may still be on its way
                    self._refused.append(call)
                return
            else:
                self._trace("client", f"{call.method} is done")
                self._acknowledged(call, response)
                return

    async def _send(self, call: Call) -> Message:
        """One try. Raises what the edge raises, or TimeoutError where no answer comes in time."""
        loop, chance = self._loop, self._chance
        answer: asyncio.Future[Message] = loop.create_future()
        served: list[asyncio.Task[Any]] = []

        async def serve(life: Life, method: Callable[[Any, Any], Awaitable[Message]]) -> None:
            request = type(call.request)()
            request.CopyFrom(call.request)
            try:
                response, error = await method(request, Context(call)), None
            except TwinlogError as raised:
                response, error = None, raised
            except asyncio.CancelledError:
                return
            loop.call_later(latency(chance), answered, answer, response, error, context=loop.nobody)

        def arrive() -> None:
            chosen = self._edge(call.service)
            if chosen is None:
                answered(answer, None, Unavailable("connection refused"))
                return
            life, edge = chosen
            served.append(loop.start(serve(life, getattr(edge, call.method)), life))

        loop.call_later(latency(chance), arrive, context=loop.nobody)
        try:
            async with asyncio.timeout(call.patience):
                return await answer
        finally:
            for task in served:
                task.cancel()  # as gRPC does when the deadline has passed

    def _acknowledged(self, call: Call, response: Any) -> None:
        model = self._model
        effects = model.requested.get(call.correlation_id, [])
        match call.method:
            case "CreateOrder":
                check(len(effects) == 1, "acknowledged", f"{len(effects)} effects of {call}")
                check(model.orders[response.order_id] != NONE, "acknowledged", f"lost: {call}")
            case "CancelOrder":
                check(model.orders[call.request.order_id] == CANCELLED, "acknowledged", f"lost: {call}")
            case "CreateCustomer":
                check(len(effects) == 1, "acknowledged", f"{len(effects)} effects of {call}")
