"""The client: sends commands, records each answer, and resolves the outcomes that it was not told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from shop.customers.v1 import customer_service_pb2 as customers
from shop.customers.v1.customer_service_pb2_grpc import CustomerServiceStub
from shop.orders.v1 import order_service_pb2 as orders
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.orders.v1.saga_mode_pb2 import (
    SAGA_MODE_CHOREOGRAPHY,
    SAGA_MODE_ORCHESTRATION,
    SAGA_MODE_UNSPECIFIED,
    SagaMode,
)
from shop.queries.v1 import order_query_service_pb2 as queries
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack.topology import CUSTOMER_SVC, ORDER_SVC, PROJECTOR

DEADLINE_SECONDS = 3.0
_WORKERS = 12
_STUBBORN_TRIES = 5
_RESOLVE_SECONDS = 60.0
_OPTIONS = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]

MODES = (SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION)


class Outcome(StrEnum):
    """What the client knows of a request."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(eq=False)
class Sent:
    """A request and what became of it."""

    request: Any
    method: str
    outcome: Outcome = Outcome.UNKNOWN
    reply: Any = None
    tries: int = 0
    was_unknown: bool = False
    """Whether the client was ever left without an answer."""
    codes: list[str] = field(default_factory=list)
    """Every error code it got, in order."""
    problem: str = ""
    """An answer that this request should never get."""

    @property
    def request_id(self) -> str:
        """The same in every try."""
        return str(self.request.request_id)


# The refusals that a well-behaved client of this load may get.
_REFUSALS = {"CancelOrder": {grpc.StatusCode.FAILED_PRECONDITION}}
_UNKNOWN = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Clients:
    """Channels to every replica. Use as an async context manager."""

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        """``addresses`` of the replicas, by service."""
        self._addresses = addresses

    async def __aenter__(self) -> Clients:
        self._channels = {
            service: [grpc.aio.insecure_channel(address, options=_OPTIONS) for address in addresses]
            for service, addresses in self._addresses.items()
        }
        self.orders = [OrderServiceStub(channel) for channel in self._channels[ORDER_SVC.name]]
        self.customers = [CustomerServiceStub(channel) for channel in self._channels[CUSTOMER_SVC.name]]
        self.queries = [OrderQueryServiceStub(channel) for channel in self._channels[PROJECTOR.name]]
        return self

    async def __aexit__(self, *exc: object) -> None:
        channels = [channel for channels in self._channels.values() for channel in channels]
        await asyncio.gather(*(channel.close() for channel in channels))

    def method(self, name: str, rng: Random) -> Any:
        """A command's stub, of a replica chosen by ``rng``."""
        stubs: Sequence[Any] = self.orders if name.endswith("Order") or "Mode" in name else self.customers
        return getattr(rng.choice(stubs), name)


class Load:
    """One scenario's requests, for customers that only it uses."""

    def __init__(self, clients: Clients, seed: str, *, rate: float = 100.0) -> None:
        """``rate`` is the approximate number of requests per second."""
        self.clients = clients
        self.sent: list[Sent] = []
        self.deadline: Callable[[Random], float] = lambda _rng: DEADLINE_SECONDS
        """The deadline of the next request, in seconds."""
        self._seed = seed
        self._rate = rate
        self._rng = Random(f"{seed}/ids")
        self._serial = 0
        self._stopping = asyncio.Event()
        self._may_send = asyncio.Event()
        self._may_send.set()
        self._under_way = 0
        self._customers: list[str] = []
        self._acknowledged: deque[str] = deque(maxlen=200)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends requests while the block runs."""
        self._stopping.clear()
        async with asyncio.TaskGroup() as workers:
            for number in range(_WORKERS):
                workers.create_task(self._work(number))
            try:
                yield
            finally:
                self._stopping.set()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Begins nothing new while the block runs, which begins once every outcome is known."""
        self._may_send.clear()
        try:
            while self._under_way or any(sent.outcome is Outcome.UNKNOWN for sent in self.sent):
                await self.resolve()
                await asyncio.sleep(0.05)
            yield
        finally:
            self._may_send.set()

    async def prepare(self, count: int = 12) -> None:
        """Creates customers, rich and poor. Raises AssertionError where that fails for a minute."""
        made = [await self.attempt(self._create_customer(self._rng)) for _ in range(count)]
        await self.resolve()
        assert all(sent.outcome is Outcome.OK for sent in made), [sent.codes for sent in made]

    async def goes_through(self) -> bool:
        """Whether orders of both modes are accepted and reach the view now."""
        probes = [self._create_order(self._rng, mode, units=0) for mode in MODES]
        results = await asyncio.gather(*(self.attempt(probe, seconds=1.0) for probe in probes))
        if any(sent.outcome is not Outcome.OK for sent in results):
            return False
        watched = await asyncio.gather(*(self._is_shown(sent.reply) for sent in results))
        return all(watched)

    async def attempt(self, sent: Sent, seconds: float = DEADLINE_SECONDS) -> Sent:
        """Sends a request once, for the first time or again, and writes the outcome down."""
        if not sent.tries:
            self.sent.append(sent)
        sent.tries += 1
        self._under_way += 1
        try:
            sent.reply = await self.clients.method(sent.method, self._rng)(
                sent.request, timeout=seconds, metadata=(("x-correlation-id", sent.request_id),)
            )
            self._note_success(sent)
        except grpc.aio.AioRpcError as error:
            _note_error(sent, error)
        finally:
            self._under_way -= 1
        return sent

    async def resolve(self) -> int:
        """Repeats every request of unknown outcome, with its id, for up to a minute; returns how many are left."""
        left = [sent for sent in self.sent if sent.outcome is Outcome.UNKNOWN]
        loop = asyncio.get_running_loop()
        until = loop.time() + _RESOLVE_SECONDS
        while left and loop.time() < until:
            for start in range(0, len(left), 50):
                await asyncio.gather(*(self.attempt(sent, 10.0) for sent in left[start : start + 50]))
            left = [sent for sent in left if sent.outcome is Outcome.UNKNOWN]
            if left:
                await asyncio.sleep(0.2)
        return len(left)

    @property
    def rich(self) -> str:
        """The customer who can pay for anything."""
        return self._customers[0]

    def forget(self) -> int:
        """Drops the records of requests with a known outcome; returns how many those were."""
        before = len(self.sent)
        self.sent = [sent for sent in self.sent if sent.outcome is Outcome.UNKNOWN]
        return before - len(self.sent)

    async def switch(self, mode: SagaMode.ValueType) -> None:
        """Sets the mode of new orders, however often that takes. Raises TimeoutError after a minute."""
        request = orders.SetSagaModeRequest(saga_mode=mode)
        async with asyncio.timeout(_RESOLVE_SECONDS):
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await self.clients.method("SetSagaMode", self._rng)(request, timeout=DEADLINE_SECONDS)
                    return
                await asyncio.sleep(0.1)

    async def _work(self, number: int) -> None:
        rng = Random(f"{self._seed}/{number}")
        stubborn = number % 2 == 0
        while not self._stopping.is_set():
            await asyncio.sleep(rng.expovariate(self._rate / _WORKERS))
            await self._may_send.wait()
            sent = await self.attempt(self._next(rng), self.deadline(rng))
            if stubborn:
                await self._insist(sent, rng)

    async def _insist(self, sent: Sent, rng: Random) -> None:
        for _ in range(_STUBBORN_TRIES):
            if sent.outcome is not Outcome.UNKNOWN or self._stopping.is_set():
                return
            await asyncio.sleep(0.1 + rng.random() * 0.3)
            await self.attempt(sent, self.deadline(rng))

    def _next(self, rng: Random) -> Sent:
        choice = rng.random()
        if choice < 0.72 or not self._acknowledged:
            mode = rng.choice((*MODES, *MODES, SAGA_MODE_UNSPECIFIED))
            return self._create_order(rng, mode, units=rng.randint(1, 60))
        if choice < 0.94:
            return self._cancel(rng)
        if choice < 0.98:
            return self._change_limit(rng)
        return self._create_customer(rng)

    def _create_order(self, rng: Random, mode: SagaMode.ValueType, *, units: int) -> Sent:
        """``units`` 0: an amount that any customer can pay."""
        self._serial += 1
        customer = self._uuid() if units == 60 else rng.choice(self._customers)  # 60: a customer nobody knows
        return Sent(
            orders.CreateOrderRequest(
                request_id=self._uuid(),
                order_id=self._uuid() if rng.random() < 0.5 else "",
                customer_id=self._customers[0] if units == 0 else customer,
                total=Money(
                    currency_code="EUR" if units % 20 else "USD", units=units, nanos=10_000_000 + self._serial
                )
                if units
                else Money(currency_code="EUR", nanos=self._serial),
                saga_mode=mode,
            ),
            "CreateOrder",
        )

    def _cancel(self, rng: Random) -> Sent:
        order_id = rng.choice(self._acknowledged)
        return Sent(orders.CancelOrderRequest(request_id=self._uuid(), order_id=order_id), "CancelOrder")

    def _change_limit(self, rng: Random) -> Sent:
        self._serial += 1
        limit = Money(currency_code="EUR", units=rng.randint(500, 2500), nanos=self._serial)
        request = customers.ChangeCreditLimitRequest(
            request_id=self._uuid(), customer_id=rng.choice(self._customers[1:]), credit_limit=limit
        )
        return Sent(request, "ChangeCreditLimit")

    def _create_customer(self, rng: Random) -> Sent:
        # The first is rich, and is for those who look whether orders go through.
        limit = Money(currency_code="EUR", units=rng.randint(500, 2500) if self._customers else 1_000_000)
        request = customers.CreateCustomerRequest(request_id=self._uuid(), name="Ada", credit_limit=limit)
        return Sent(request, "CreateCustomer")

    def _uuid(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))

    def _note_success(self, sent: Sent) -> None:
        sent.outcome = Outcome.OK
        if sent.method == "CreateCustomer":
            self._customers.append(sent.reply.customer_id)
        elif sent.method == "CreateOrder":
            self._acknowledged.append(sent.reply.order_id)

    async def _is_shown(self, reply: Any) -> bool:
        stub = self._rng.choice(self.clients.queries)
        request = queries.WatchOrderRequest(
            order_id=reply.order_id, consistency_token=reply.consistency_token
        )
        try:
            answers: AsyncIterator[Message] = stub.WatchOrder(request, timeout=1.5)
            async for _answer in answers:
                pass
        except grpc.aio.AioRpcError:
            return False
        return True


def _note_error(sent: Sent, error: grpc.aio.AioRpcError) -> None:
    code = error.code()
    sent.codes.append(code.name)
    if code in _REFUSALS.get(sent.method, ()):
        sent.outcome = Outcome.FAILED
    elif code in _UNKNOWN:
        sent.was_unknown = True
    else:
        sent.outcome = Outcome.FAILED
        sent.problem = f"{sent.method} got {code.name}: {error.details()}"
