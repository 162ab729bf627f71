"""A process with two sagas over memory, the services that answer it, and its operator on a real gRPC connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc.aio
from google.protobuf.wrappers_pb2 import StringValue

from saga_orchestrator.credit_saga import CREDIT_SAGAS
from shop.customers.v1.events_pb2 import CreditReleased, CreditReserved
from shop.orders.v1.events_pb2 import OrderApproved, OrderCreated
from shop.sagas.v1 import commands_pb2 as commands
from tests.memory_service import memory_service
from tests.waiting import RETRIED_SOON, beside, until
from twinlog import Begin, Policies, Reply, Saga, Service, Step, saga_aggregate
from twinlog.consume.dead_letter_operations import DeadLetterOperations
from twinlog.dev import free_port
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.rpc import PageTokens, serve
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.rpc.registrations import registrations
from twinlog.service.environment import Endpoint
from twinlog.testing import START, ManualClock, MemoryLog, MemoryTwin
from twinlog.v1 import inspection_pb2
from twinlog.v1.inspection_pb2_grpc import InspectionServiceServicer
from twinlog.v1.saga_service_pb2_grpc import SagaServiceStub

RENEWALS = saga_aggregate(
    Saga(
        "renewal",
        version=3,
        starts_with=StringValue,
        steps=[
            Step("ask", send=lambda context: StringValue(value="?"), done=OrderApproved, retries=1,
                 deadline=timedelta(minutes=1)),
        ],
        partition_key=lambda trigger: str(trigger.value),
    )
)  # fmt: skip
"""A saga whose command names no service."""


@dataclass
class Desk:
    """The process, and what its operator calls."""

    service: Service
    log: MemoryLog
    clock: ManualClock
    sagas: Any
    twin: MemoryTwin

    async def begin(self, id: str, customer: str = "ada") -> None:
        """An order wants its credit."""
        order = OrderCreated(order_id=f"order of {id}", customer_id=customer)
        order.deadline.FromDatetime(START + timedelta(hours=1))
        await self.do(CREDIT_SAGAS, id, Begin(order, self.clock.now()))

    async def renew(self, id: str) -> None:
        await self.do(RENEWALS, id, Begin(StringValue(value=id), self.clock.now()))

    async def reserved(self, id: str) -> None:
        await self.do(CREDIT_SAGAS, id, Reply(CreditReserved(), self.clock.now()))

    async def released(self, id: str) -> None:
        await self.do(CREDIT_SAGAS, id, Reply(CreditReleased(), self.clock.now()))

    async def complete(self, id: str) -> None:
        await self.reserved(id)
        await self.do(CREDIT_SAGAS, id, Reply(OrderApproved(), self.clock.now()))

    async def do(self, aggregate: SagaAggregate, id: str, command: Any) -> None:
        await self.service.writer.execute(lambda tx: tx.do(aggregate, id, command))

    async def listed(self) -> None:
        """Returns when the list is as new as the log."""
        [cursor] = [
            each for each in self.service.watched if "saga_instances" in repr(vars(each)["_handler"].name)
        ]
        shown = [event.position for event in self.log.events if event.routing_key == "status"]
        await until(lambda: bool(shown) and cursor.position >= shown[-1])  # type: ignore[attr-defined]


@asynccontextmanager
async def desk(*aggregates: SagaAggregate, services: Mapping[str, str] = {}) -> AsyncIterator[Desk]:
    log, twin, clock, stop = MemoryLog("sagas"), MemoryTwin("sagas"), ManualClock(), asyncio.Event()
    address = f"127.0.0.1:{free_port()}"

    service = memory_service(
        "tester",
        log,
        lambda _log: twin,
        clock=clock,
        aggregates=aggregates or (CREDIT_SAGAS,),
        endpoint=Endpoint(address, domain="tests"),
        until_stopped=stop.wait,
        services=services,
    )
    async with service.running(), grpc.aio.insecure_channel(address, RETRIED_SOON) as channel:
        serving = asyncio.create_task(service.serve())
        await beside(serving, channel.channel_ready())
        yield Desk(service, log, clock, SagaServiceStub(channel), twin)
        stop.set()
        await serving


class Inspection(InspectionServiceServicer):
    """Says of one consumer what it is told to."""

    def __init__(self, name: str) -> None:
        self.consumer = inspection_pb2.ConsumerDescription(consumer=name)

    async def ListConsumers(self, request: Any, context: Any) -> inspection_pb2.ListConsumersResponse:
        return inspection_pb2.ListConsumersResponse(consumers=[self.consumer])


@dataclass
class Participant:
    """A service that takes commands of the sagas, and cannot bear some."""

    address: str = f"127.0.0.1:{0}"
    bears: Callable[[commands.ReserveCredit], bool] = lambda _command: True
    service: Service = field(init=False)
    inspection: Inspection = field(init=False)

    async def take(self, log: MemoryLog) -> None:
        """Handles the commands of the log that are for it."""
        [handler] = self.service.dead_letters.consumers.values()
        wanted = [event for event in log.events if event.routing_key == "customer_svc"]
        position = await handler.checkpoint()
        await handler.handle([event for event in wanted if event.position > position], position)


@asynccontextmanager
async def customer_svc(
    bears: Callable[[commands.ReserveCredit], bool] = lambda _command: True, *, inspected: bool = True
) -> AsyncIterator[Participant]:
    """A service with the consumer customer_svc.sagas; ``inspected``: whether it tells where that is."""
    log, own = MemoryLog("customers"), MemoryTwin("customers")
    participant = Participant()

    def rule(command: commands.ReserveCredit) -> None:
        if not bears(command):
            raise LookupError(f"no such customer: {command.customer_id}")

    service = memory_service("customer_svc", log, lambda _log: own, clock=ManualClock())
    participant.service = service
    participant.inspection = Inspection("customer_svc.sagas")  # type: ignore[abstract]
    async with service.running():
        service.subscribe(Policies(log="sagas", actor="customer_svc", rules={commands.ReserveCredit: rule}))
        operations: DeadLetterOperations = service.dead_letters
        letters = DeadLetterService(operations, PageTokens(b"key"))
        async with serve(
            [
                *registrations(letters),
                *([*registrations(participant.inspection)] if inspected else []),
            ],
            domain="tests",
        ) as server:
            participant.address = server.address
            yield participant
