"""The whole shop in one event loop: the services' own wiring over the memory adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Self, cast

from customer_svc import app as customer_svc
from order_svc import app as order_svc
from projector import app as projector
from saga_orchestrator import app as saga_orchestrator
from twinlog import Clock, Schema, Service
from twinlog.consume import Consumer
from twinlog.consume.cursor import BATCH
from twinlog.log.lease import AlwaysHeld
from twinlog.memory.keys import MemoryKeys
from twinlog.observe.metrics.process import Metrics
from twinlog.observe.tracing import NO_TRACING, Tracing
from twinlog.service.environment import Environment
from twinlog.service.process import observed
from twinlog.testing import CountedIds, ManualClock, MemoryLog, MemoryTwin, MemoryViews
from twinlog.testing.internals import AnyAggregate, Cursor, Linger, Twin
from twinlog.testing.simulation.world import Follower, Gated

DEADLINE = timedelta(seconds=30)


class NoContext:
    """A call without metadata and without a deadline."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None


class NoReplica:
    """The lease of work that the test does by itself."""

    problem: str | None = None

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        await asyncio.Event().wait()


class Node(Service):
    """A service whose timers fire when the test says so, and whose consumers can be held up."""

    def __init__(self, name: str, log: str, shop: MemoryShop, aggregates: Sequence[AnyAggregate]) -> None:
        self.works = asyncio.Event()
        """Cleared: events of other logs, and of its own, are not handled."""
        self.works.set()
        self._shop = shop
        self.metrics = Metrics(shop.clock) if shop.measured else None
        super().__init__(
            name,
            shop.logs[log],
            Environment(
                twin=shop.twin,
                lease=lambda work: NoReplica() if work == "timers" else AlwaysHeld(),
                clock=shop.clock,
                ids=shop.ids,
                on_crash=shop.crashed,
                observed=observed(self.metrics),
                tracing=shop.tracing(name),
                keys=shop.keys,
            ),
            schema=Schema(),
            aggregates=aggregates,
            middleware=[lambda consumer: Gated(consumer, self.works)],
        )

    def _feed(self, consumer: Consumer, linger: Linger, batch: int = BATCH) -> Cursor:
        # Without the pauses of views, which would be most of what a test waits for here.
        cursor = super()._feed(consumer, Linger(), batch)
        log = self._shop.logs[consumer.source]
        self._shop.followers.append(Follower(log, consumer, cursor, self.works))
        return cursor


class MemoryShop:
    """Use as an async context manager. ``orders`` and ``customers`` are the services' own servicers."""

    def __init__(
        self,
        deadline: timedelta = DEADLINE,
        tracing: Callable[[str, Clock], Tracing] = lambda _service, _clock: NO_TRACING,
        *,
        measured: bool = False,
    ) -> None:
        """``deadline``: how long an order may stay PENDING. ``tracing``: that of a service, by its name. ``measured``:
        whether the services have metrics."""
        self.measured = measured
        self._deadline = deadline
        self._tracing = tracing
        self.clock = ManualClock()
        self.ids = CountedIds()
        self.keys = MemoryKeys()
        self.logs = {name: MemoryLog(name) for name in ("orders", "customers", "sagas", "projector")}
        self.views = MemoryViews(self.logs["projector"])
        self.saga_views = MemoryViews(self.logs["sagas"])
        self.followers: list[Follower] = []
        self._twins = {name: MemoryTwin(name) for name in self.logs}
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for twin in self._twins.values():
            await twin.create(1)
        self.order_svc = await self._running("order_svc", "orders", order_svc.SPEC.aggregates)
        self.customer_svc = await self._running("customer_svc", "customers", customer_svc.SPEC.aggregates)
        self.saga_orchestrator = await self._running(
            "saga_orchestrator", "sagas", saga_orchestrator.SPEC.aggregates
        )
        seconds = self._deadline.total_seconds()
        self.order_svc.settings = order_svc.OrderSettings.model_construct(order_deadline_seconds=seconds)
        self.orders = order_svc.wire(self.order_svc)
        self.customers = customer_svc.wire(self.customer_svc)
        saga_orchestrator.wire(self.saga_orchestrator, cast(Any, self.saga_views))
        self.saga_orchestrator.saga_list = None  # the kernel's own: views in memory have no queries
        self.projector = await self._running("projector", "projector")
        projector.feed(self.projector, self.views)
        return self

    @property
    def nodes(self) -> Sequence[Node]:
        """The four services."""
        return self.order_svc, self.customer_svc, self.saga_orchestrator, self.projector

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        self._failure.cancel()

    def tracing(self, service: str) -> Tracing:
        return self._tracing(service, self.clock)

    def twin(self, log: str) -> Twin:
        return self._twins[log]

    def crashed(self, task: str, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def settle(self) -> None:
        """Returns when every event has had its effects, besides those that wait for a service that is held up."""
        async with asyncio.timeout(60):
            while any(follower.waits() for follower in self.followers):
                self.check()
                await asyncio.sleep(0)

    def check(self) -> None:
        """Raises what a task has ended with, if one has."""
        if self._failure.done():
            self._failure.result()

    async def let_pass(self, time: timedelta) -> None:
        """Moves the clock, and fires what is due then."""
        self.clock.advance(time)
        for node in (self.order_svc, self.saga_orchestrator):
            assert node.timers
            await node.timers.fire()

    async def _running(self, name: str, log: str, aggregates: Sequence[AnyAggregate] = ()) -> Node:
        node = Node(name, log, self, aggregates)
        await self._stack.enter_async_context(node.running())
        return node
