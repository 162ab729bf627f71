"""Traces of the running shop: four processes, one receiver, and the tree of spans of one order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from uuid import uuid4

import pytest
import pytest_asyncio

from shop.orders.v1 import order_service_pb2 as order_pb
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from tests.controls import Mode, wire
from tests.e2e.client import PATIENCE, Client, connect
from tests.servers import folder
from tests.shops import running_shop
from tests.tracing.receiver import Receiver, Span, receiver
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLER = "00f067aa0ba902b7"
"""The caller's span."""

CHOREOGRAPHED = """\
order_svc: shop.orders.v1.OrderService/CreateOrder
  customer_svc: process orders OrderCreated
    customer_svc: append customers CreditReserved
    customer_svc: publish customers CreditReserved
    order_svc: process customers CreditReserved
      order_svc: append orders OrderApproved
      order_svc: publish orders OrderApproved
      projector: process orders OrderApproved
    projector: process customers CreditReserved
  order_svc: append orders OrderCreated
  order_svc: publish orders OrderCreated
  projector: process orders OrderCreated"""

ORCHESTRATED = """\
order_svc: shop.orders.v1.OrderService/CreateOrder
  order_svc: append orders OrderCreated
  order_svc: publish orders OrderCreated
  projector: process orders OrderCreated
  saga_orchestrator: process orders OrderCreated
    customer_svc: process sagas ReserveCredit
      customer_svc: append customers CreditReserved
      customer_svc: publish customers CreditReserved
      projector: process customers CreditReserved
      saga_orchestrator: process customers CreditReserved
        order_svc: process sagas ApproveOrder
          order_svc: append orders OrderApproved
          order_svc: publish orders OrderApproved
          projector: process orders OrderApproved
          saga_orchestrator: process orders OrderApproved
            projector: process sagas SagaCompleted
            saga_orchestrator: append sagas SagaCompleted
            saga_orchestrator: process sagas SagaCompleted
            saga_orchestrator: publish sagas SagaCompleted
        projector: process sagas ApproveOrder
        projector: process sagas SagaStepSucceeded
        saga_orchestrator: append sagas SagaStepSucceeded ApproveOrder
        saga_orchestrator: publish sagas SagaStepSucceeded ApproveOrder
    projector: process sagas ReserveCredit
    projector: process sagas SagaStarted
    saga_orchestrator: append sagas SagaStarted ReserveCredit
    saga_orchestrator: process sagas SagaStarted
    saga_orchestrator: publish sagas SagaStarted ReserveCredit"""

TREES = {SAGA_MODE_CHOREOGRAPHY: CHOREOGRAPHED, SAGA_MODE_ORCHESTRATION: ORCHESTRATED}


@pytest.fixture(scope="module")
def traces() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(traces: Receiver) -> AsyncIterator[Client]:
    """A client of a shop that sends its traces; only calls of which a caller says so are sampled."""
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": traces.url,
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with pytest.MonkeyPatch.context() as environment, folder() as path:
        for name, value in settings.items():
            environment.setenv(name, value)
        async with running_shop(path) as shop, connect(shop) as connected:
            yield connected


async def create(
    client: Client, customer_id: str, mode: Mode, traceparent: str
) -> order_pb.CreateOrderResponse:
    request = order_pb.CreateOrderRequest(customer_id=customer_id, total=wire("1", "EUR"), saga_mode=mode)
    metadata = (("traceparent", traceparent),) if traceparent else ()
    created: order_pb.CreateOrderResponse = await client.orders.CreateOrder(
        request, timeout=PATIENCE, metadata=metadata
    )
    return created


async def ended(client: Client, created: order_pb.CreateOrderResponse) -> None:
    order = (await client.watch(created.order_id, created.consistency_token))[-1]
    assert order.state == ORDER_STATE_APPROVED


async def arrived(traces: Receiver, trace_id: str, tree: str) -> None:
    """Returns when the whole tree is there; fails with what is there instead."""
    try:
        await until(lambda: traces.drawn(trace_id) == tree)
    except TimeoutError:
        assert traces.drawn(trace_id) == tree


@pytest.mark.parametrize("mode", TREES)
async def test_the_spans_of_one_order(client: Client, traces: Receiver, mode: Mode) -> None:
    trace_id = uuid4().hex
    created = await create(client, await client.customer(), mode, f"00-{trace_id}-{CALLER}-01")
    await ended(client, created)
    await arrived(traces, trace_id, TREES[mode])
    spans = traces.trace(trace_id)
    assert not any(span.failed for span in spans)
    call, *rest = spans
    assert (call.kind, call.parent_id) == ("SERVER", CALLER)
    assert len({span.attributes["twinlog.correlation_id"] for span in spans}) == 1
    assert {span.kind for span in rest} == {"CLIENT", "PRODUCER", "CONSUMER"}
    for span in rest:
        assert call.began <= span.began <= span.ended


async def test_spans_follow_the_semantic_conventions(client: Client, traces: Receiver) -> None:
    trace_id = uuid4().hex
    created = await create(
        client, await client.customer(), SAGA_MODE_CHOREOGRAPHY, f"00-{trace_id}-{CALLER}-01"
    )
    await ended(client, created)
    await arrived(traces, trace_id, CHOREOGRAPHED)
    spans = traces.trace(trace_id)
    assert said(spans, "shop.orders.v1.OrderService/CreateOrder", "rpc.") == {
        "rpc.system.name": "grpc",
        "rpc.method": "shop.orders.v1.OrderService/CreateOrder",
        "rpc.response.status_code": "OK",
    }
    # What else is in a batch is chance: tests/tracing/test_memory.py counts.
    append = said(spans, "append orders", "db.")
    assert append.pop("db.operation.batch.size")
    assert append == {"db.system.name": "postgresql", "db.operation.name": "append"}
    publish = said(spans, "publish customers", "messaging.")
    assert publish.pop("messaging.batch.message_count")
    assert publish == {
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "customers",
    }
    process = said([span for span in spans if span.service == "customer_svc"], "process orders", "messaging.")
    assert process.pop("messaging.message.id")
    assert process == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "orders",
        "messaging.consumer.group.name": "customer_svc.orders",
    }


def said(spans: Sequence[Span], name: str, prefix: str) -> dict[str, object]:
    span = next(span for span in spans if span.name == name)
    return {key: value for key, value in span.attributes.items() if key.startswith(prefix)}


async def test_a_trace_goes_on_after_a_restart(client: Client, traces: Receiver) -> None:
    trace_id = uuid4().hex
    customer_id = await client.customer()
    async with client.without("customer_svc"):
        created = await create(client, customer_id, SAGA_MODE_CHOREOGRAPHY, f"00-{trace_id}-{CALLER}-01")
        await client.happened(created.order_id, "OrderCreated", token=created.consistency_token)
        await client.kill("customer_svc")
    await ended(client, created)
    await arrived(traces, trace_id, CHOREOGRAPHED)


@pytest.mark.parametrize("given", ["", f"00-{'ab' * 16}-{CALLER}-00"], ids=["no trace", "unsampled"])
async def test_an_unsampled_call_stores_and_sends_nothing(
    client: Client, traces: Receiver, given: str
) -> None:
    before = len(traces.spans)
    created = await create(client, await client.customer(), SAGA_MODE_ORCHESTRATION, given)
    await ended(client, created)
    for log in ("orders", "customers", "sagas"):
        async with client.database(log) as database:
            stored = await database.fetch(
                "SELECT metadata FROM events WHERE position($1::bytea IN payload) > 0",
                created.order_id.encode(),
            )
        assert stored
        assert {json.loads(row["metadata"]).get("traceparent", "") for row in stored} == {given}
    trace_id = uuid4().hex  # what came before has been sent when this has
    sampled = await create(
        client, await client.customer(), SAGA_MODE_CHOREOGRAPHY, f"00-{trace_id}-{CALLER}-01"
    )
    await ended(client, sampled)
    await arrived(traces, trace_id, CHOREOGRAPHED)
    assert len(traces.spans) - before == len(traces.trace(trace_id))


async def test_a_refused_call_says_why(client: Client, traces: Receiver) -> None:
    trace_id = uuid4().hex
    call = client.orders.CreateOrder(
        order_pb.CreateOrderRequest(), metadata=(("traceparent", f"00-{trace_id}-{CALLER}-01"),)
    )
    assert (await call.code()).name == "INVALID_ARGUMENT"
    await until(lambda: bool(traces.trace(trace_id)))
    [span] = traces.trace(trace_id)
    assert not span.failed  # it is the client's fault
    assert span.attributes["rpc.response.status_code"] == span.attributes["error.type"] == "INVALID_ARGUMENT"
    assert span.attributes["twinlog.reason"] == "INVALID_ARGUMENT"
