"""The whole shop in one event loop: the real edges, deciders, policies, saga and views over the memory adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from customer_svc import policies as customer_svc
from customer_svc.service import CustomerService
from order_svc import policies as order_svc
from order_svc.domain import ORDER
from order_svc.service import OrderService
from projector.views.customers import CUSTOMERS
from projector.views.orders import ORDERS
from saga_orchestrator import policies as saga_orchestrator
from saga_orchestrator.credit_saga import CREDIT_SAGAS
from twinlog.cursor import Cursor, Handler
from twinlog.event import Recorded
from twinlog.memory import MemoryLog, MemoryTwin, MemoryViews
from twinlog.policies import Policies, PolicyHandler
from twinlog.projection import AnyView, Projection
from twinlog.relay import Relay
from twinlog.testing import CountedIds, ManualClock
from twinlog.timers import Timers
from twinlog.writer import Writer

DEADLINE = timedelta(seconds=30)


class NoContext:
    """A call without metadata and without a deadline."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None:
        return None


@dataclass
class Follower:
    """A cursor and the log that it reads."""

    log: MemoryLog
    types: Sequence[str]
    cursor: Cursor
    gate: asyncio.Event

    def waits(self) -> bool:
        """Whether there is something that it has not handled and may handle."""
        if not self.gate.is_set():
            return False
        wanted = (event.position for event in reversed(self.log.events) if self._wants(event))
        return next(wanted, 0) > self.cursor.position

    def _wants(self, event: Recorded) -> bool:
        return not self.types or event.type.rpartition(".")[2] in self.types


class Gated:
    """A handler that can be held up, as if its service were away."""

    def __init__(self, handler: Handler, gate: asyncio.Event) -> None:
        self._handler = handler
        self._gate = gate
        self.consumer, self.types = handler.consumer, handler.types

    async def checkpoint(self) -> int:
        return await self._handler.checkpoint()

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        await self._gate.wait()
        return await self._handler.handle(events, after)


class MemoryShop:
    """Use as an async context manager. ``orders`` and ``customers`` are the services' own servicers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.logs = {name: MemoryLog(name) for name in ("orders", "customers", "sagas")}
        self.views = MemoryViews()
        self.customer_svc_works = asyncio.Event()
        """Cleared: customer_svc handles no events."""
        self.customer_svc_works.set()
        self._always = asyncio.Event()
        self._always.set()
        self._twins = {name: MemoryTwin(name) for name in self.logs}
        self._relays = {name: Relay(self.logs[name], self._twins[name]) for name in self.logs}
        self._ids = CountedIds()
        self._followers: list[Follower] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for twin in self._twins.values():
            await twin.create(1)
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        running = [tasks.create_task(relay.run()) for relay in self._relays.values()]
        writers = {name: await self._writer(name) for name in self.logs}
        self.orders = OrderService(writers["orders"], clock=self.clock, ids=self._ids, deadline=DEADLINE)
        self.customers = CustomerService(writers["customers"], ids=self._ids)
        self._timers = [
            Timers(self.logs[name], writers[name], [aggregate], clock=self.clock, actor=name)
            for name, aggregate in (("orders", ORDER), ("sagas", CREDIT_SAGAS))
        ]
        self._follow("customers", writers, customer_svc.CHOREOGRAPHY, customer_svc.ORCHESTRATION)
        self._follow("orders", writers, order_svc.CHOREOGRAPHY, order_svc.ORCHESTRATION)
        self._follow("sagas", writers, *saga_orchestrator.policies(self.clock))
        self._project("orders", ORDERS)
        self._project("customers", CUSTOMERS)
        running += [tasks.create_task(follower.cursor.run()) for follower in self._followers]
        for task in running:
            self._stack.callback(task.cancel)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def settle(self) -> None:
        """Returns when every event has had its effects, besides those that wait for customer_svc."""
        async with asyncio.timeout(60):
            while any(follower.waits() for follower in self._followers):
                await asyncio.sleep(0)

    async def let_pass(self, time: timedelta) -> None:
        """Moves the clock, and fires what is due then."""
        self.clock.advance(time)
        for timers in self._timers:
            await timers.fire()

    async def _writer(self, name: str) -> Writer:
        offer = self._relays[name].offer
        writer = Writer(self.logs[name], clock=self.clock, ids=self._ids, on_commit=offer)
        return await self._stack.enter_async_context(writer)

    def _follow(self, owner: str, writers: dict[str, Writer], *tables: Policies) -> None:
        gate = self.customer_svc_works if owner == "customers" else self._always
        for policies in tables:
            self._feed(policies.log, PolicyHandler(policies, writers[owner], self.logs[owner]), gate)

    def _project(self, log: str, view: AnyView) -> None:
        self._feed(log, Projection(f"projector.{log}", [view], self.views), self._always)

    def _feed(self, log: str, handler: Any, gate: asyncio.Event) -> None:
        cursor = Cursor(self._twins[log], Gated(handler, gate))
        self._followers.append(Follower(self.logs[log], handler.types, cursor, gate))
