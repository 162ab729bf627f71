"""The read side over gRPC: lists, pages, fresh reads, watching, the timeline, the history, the sagas."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict

from saga_orchestrator.credit_saga import saga_id
from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_pb2 import (
    ORDER_STATE_APPROVED,
    ORDER_STATE_CANCELLED,
    ORDER_STATE_PENDING,
    ORDER_STATE_REJECTED,
    REJECTION_REASON_INSUFFICIENT_CREDIT,
)
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY, SAGA_MODE_ORCHESTRATION
from shop.queries.v1.customer_query_service_pb2 import GetOrderHistoryRequest, ListCustomersRequest
from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, ListOrdersRequest, TimelineEntry
from shop.sagas.v1 import saga_service_pb2 as sagas
from tests.controls import MODES, Mode, new_id, wire
from tests.e2e.client import PATIENCE, Client, refusal, too_late
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="package")
FAR = 10**15
"""A position that no log reaches."""


async def test_a_write_is_read_with_its_token(client: Client) -> None:
    for _ in range(5):
        request = CreateCustomerRequest(name="Grace Hopper", credit_limit=wire("20"))
        created = await client.customers.CreateCustomer(request, timeout=PATIENCE)
        seen = await client.get_customer(created.customer_id, created.consistency_token)
        assert (seen.name, seen.credit_limit, seen.available) == ("Grace Hopper", wire("20"), wire("20"))
        order = await client.create(created.customer_id, "1")
        shown = await client.get(order.order_id, order.consistency_token)
        assert (shown.customer_id, shown.total) == (created.customer_id, wire("1"))
        assert shown.created_at.seconds <= shown.updated_at.seconds <= time.time() + 1


async def test_ids_are_the_clients_or_sortable_by_time(client: Client) -> None:
    mine, customer = new_id(), await client.customer()
    request = CreateOrderRequest(order_id=mine.upper(), customer_id=customer, total=wire("1"))
    assert (await client.orders.CreateOrder(request, timeout=PATIENCE)).order_id == mine
    made = [(await client.create(customer, "1")).order_id for _ in range(3)]
    assert [id[14] for id in made] == ["7"] * 3
    assert made == sorted(made)


async def test_a_view_that_does_not_get_there_in_time_says_so(client: Client) -> None:
    order = await client.create(await client.customer())
    logs = ("orders", "customers", "sagas")
    requests = [GetOrderRequest(order_id=order.order_id, consistency_token=f"{log}:{FAR}") for log in logs]
    refusals = await asyncio.gather(*[too_late(partial(_get, client, request)) for request in requests])
    for log, lagging in zip(logs, refusals, strict=True):
        assert (lagging.code, lagging.reason) == (grpc.StatusCode.UNAVAILABLE, "VIEW_LAGGING")
        assert (lagging.facts["log"], lagging.facts["wanted"]) == (log, str(FAR))
        assert int(lagging.facts["reached"]) < FAR


def _get(client: Client, request: GetOrderRequest, seconds: float) -> Any:
    return client.order_queries.GetOrder(request, timeout=seconds)


async def test_a_view_that_lags_is_waited_for(client: Client) -> None:
    customer = await client.customer()
    async with client.without("projector"):
        created = await client.create(customer)
        reading = asyncio.ensure_future(client.get(created.order_id, created.consistency_token))
    assert (await reading).order_id == created.order_id


@pytest.mark.parametrize("mode", MODES, ids=["choreography", "orchestration"])
async def test_an_order_is_watched_until_its_end(client: Client, mode: Mode) -> None:
    customer = await client.customer()
    async with client.without("customer_svc"):
        created = await client.create(customer, "1", mode)
        watchers = [
            asyncio.ensure_future(client.watch(created.order_id, created.consistency_token)) for _ in range(5)
        ]
        pending = await client.get(created.order_id, created.consistency_token)
        assert pending.state == ORDER_STATE_PENDING
    for seen in await asyncio.gather(*watchers):
        assert seen[-1].state == ORDER_STATE_APPROVED
        assert [order.version for order in seen] == sorted({order.version for order in seen})
    [ended] = await client.watch(created.order_id)
    assert ended.state == ORDER_STATE_APPROVED, "one that has ended is shown once"


async def test_lists_are_newest_first_and_filtered(client: Client) -> None:
    customer, other = await client.customer("10"), await client.customer("10")
    approved = [await client.order(customer, "2") for _ in range(3)]
    rejected = await client.order(customer, "20")
    elsewhere = await client.order(other, "2")
    cancelled = await client.cancel(approved[0].order_id)

    async def ids(**filters: object) -> list[str]:
        request = ListOrdersRequest(consistency_token=cancelled.consistency_token, **filters)  # type: ignore[arg-type]
        return [
            order.order_id
            for order in (await client.order_queries.ListOrders(request, timeout=PATIENCE)).orders
        ]

    newest_first = [rejected.order_id, *(order.order_id for order in reversed(approved))]
    assert await ids(customer_id=customer) == newest_first
    assert await ids(customer_id=customer, state=ORDER_STATE_APPROVED) == newest_first[1:3]
    assert await ids(customer_id=customer, state=ORDER_STATE_REJECTED) == [rejected.order_id]
    assert await ids(customer_id=customer, state=ORDER_STATE_CANCELLED) == [approved[0].order_id]
    assert await ids(customer_id=customer, state=ORDER_STATE_PENDING) == []
    assert await ids(customer_id=new_id()) == []
    assert (await ids(page_size=2)) == [elsewhere.order_id, rejected.order_id]
    assert elsewhere.order_id in await ids(state=ORDER_STATE_APPROVED)


async def test_pages_stay_as_they_are_while_orders_come_in(client: Client) -> None:
    customer = await client.customer("1000")
    orders = [(await client.order(customer, "1")).order_id for _ in range(5)]
    seen, token = [], ""
    while True:
        request = ListOrdersRequest(customer_id=customer, page_size=2, page_token=token)
        page = await client.order_queries.ListOrders(request, timeout=PATIENCE)
        assert len(page.orders) <= 2
        seen += [order.order_id for order in page.orders]
        token = page.next_page_token
        if not token:
            break
        await client.order(customer, "1")
    assert seen == orders[::-1], "nothing twice, nothing left out"
    whole = ListOrdersRequest(customer_id=customer, page_size=7)
    assert not (await client.order_queries.ListOrders(whole, timeout=PATIENCE)).next_page_token, (
        "the last page"
    )


async def test_customers_are_listed_in_pages(client: Client) -> None:
    made = [await client.customer() for _ in range(3)]
    await client.order(new_id())
    await client.get_customer(made[-1], f"customers:{await client.head('customers')}")
    first = await client.customer_queries.ListCustomers(ListCustomersRequest(page_size=2), timeout=PATIENCE)
    assert [customer.customer_id for customer in first.customers] == made[:0:-1]
    await client.customer()
    following = ListCustomersRequest(page_size=1, page_token=first.next_page_token)
    second = await client.customer_queries.ListCustomers(following, timeout=PATIENCE)
    assert [customer.customer_id for customer in second.customers] == [made[0]]


async def test_a_customers_history_has_their_orders_in_pages(client: Client) -> None:
    customer = await client.customer("5")
    orders = [(await client.order(customer, total)).order_id for total in ("2", "3", "4")]
    await client.reserves(customer, "5")
    request = GetOrderHistoryRequest(customer_id=customer, page_size=2)
    first = await client.customer_queries.GetOrderHistory(request, timeout=PATIENCE)
    assert (first.customer.reserved, first.customer.available) == (wire("5"), wire("0"))
    assert [order.order_id for order in first.orders] == [orders[2], orders[1]]
    assert first.orders[0].rejection_reason == REJECTION_REASON_INSUFFICIENT_CREDIT
    request.page_token = first.next_page_token
    second = await client.customer_queries.GetOrderHistory(request, timeout=PATIENCE)
    assert ([order.order_id for order in second.orders], second.next_page_token) == ([orders[0]], "")


def names(entries: list[TimelineEntry]) -> list[str]:
    return [entry.type.rpartition(".")[2] for entry in entries]


async def test_the_timeline_of_a_choreographed_order(client: Client) -> None:
    order = await client.order(await client.customer(), "12", SAGA_MODE_CHOREOGRAPHY)
    await client.happened(order.order_id, "OrderCreated", "CreditReserved", "OrderApproved")
    created, reserved, approved = await client.timeline(order.order_id)
    assert names([created, reserved, approved]) == ["OrderCreated", "CreditReserved", "OrderApproved"]
    assert [entry.log for entry in (created, reserved, approved)] == ["orders", "customers", "orders"]
    assert [entry.actor for entry in (created, reserved, approved)] == ["client", "customer_svc", "order_svc"]
    assert created.cause == "rpc/CreateOrder"
    assert reserved.cause == f"orders/{created.position}"
    assert approved.cause == f"customers/{reserved.position}"
    assert len({entry.correlation_id for entry in (created, reserved, approved)}) == 1
    payload = MessageToDict(reserved.payload)
    assert payload == json.loads(reserved.payload_json)
    assert (payload["order_id"], payload["amount"]["units"]) == (order.order_id, "12")


async def test_the_timeline_of_an_orchestrated_order_that_is_cancelled(client: Client) -> None:
    order = await client.order(await client.customer(), "12", SAGA_MODE_ORCHESTRATION)
    await client.approved(order.order_id, SAGA_MODE_ORCHESTRATION)
    await client.cancel(order.order_id)
    # Of three logs, whose views are as far as they are.
    await client.happened(order.order_id, "OrderCancelled", "CreditReleased", "SagaCompensated")
    entries = await client.timeline(order.order_id)
    assert names(entries) == [
        "OrderCreated",
        "SagaStarted",
        "ReserveCredit",
        "CreditReserved",
        "SagaStepSucceeded",
        "ApproveOrder",
        "OrderApproved",
        "SagaCompleted",
        "OrderCancelled",
        "SagaInterrupted",
        "ReleaseCredit",
        "CreditReleased",
        "SagaStepCompensated",
        "SagaCompensated",
    ]
    places = {f"{entry.log}/{entry.position}": number for number, entry in enumerate(entries)}
    for number, entry in enumerate(entries):
        assert places.get(entry.cause, -1) < number, "causes before effects"
        assert entry.cause in places or entry.cause.startswith("rpc/")
    for log in ("orders", "customers", "sagas"):
        positions = [entry.position for entry in entries if entry.log == log]
        assert positions == sorted(positions)
    assert all(json.loads(entry.payload_json) is not None for entry in entries)


async def test_a_saga_shows_its_steps_and_what_remains(client: Client) -> None:
    customer = await client.customer()
    async with client.without("customer_svc"):
        created = await client.create(customer, "12", SAGA_MODE_ORCHESTRATION)
        await client.happened(created.order_id, "ReserveCredit", token=created.consistency_token)
        running = await client.saga(created.order_id)
    assert running.status == sagas.SAGA_STATUS_RUNNING
    assert list(running.remaining) == ["reserve credit", "approve order"]
    assert [step.status for step in running.steps] == [sagas.STEP_STATUS_RUNNING, sagas.STEP_STATUS_WAITING]
    assert running.steps[0].HasField("deadline")
    await client.happened(created.order_id, "SagaCompleted")
    by_id = sagas.GetSagaRequest(saga_id=running.saga_id)
    done = (await client.sagas.GetSaga(by_id, timeout=PATIENCE)).saga
    assert (done.status, done.order_id, done.customer_id) == (
        sagas.SAGA_STATUS_COMPLETED,
        created.order_id,
        customer,
    )
    assert {step.status for step in done.steps} == {sagas.STEP_STATUS_DONE}
    assert (list(done.remaining), done.reason, done.saga_id) == ([], "", saga_id(created.order_id))


async def test_a_saga_that_is_undone_says_why(client: Client) -> None:
    rejected = await client.order(await client.customer("1"), "2", SAGA_MODE_ORCHESTRATION)
    await client.happened(rejected.order_id, "SagaCompensated")
    saga = await client.saga(rejected.order_id)
    assert (saga.status, saga.reason) == (sagas.SAGA_STATUS_COMPENSATED, "INSUFFICIENT_CREDIT")
    assert saga.steps[0].status == sagas.STEP_STATUS_REFUSED


async def test_sagas_are_listed_by_status_in_pages(client: Client) -> None:
    customer = await client.customer()
    done = [(await client.order(customer, "1", SAGA_MODE_ORCHESTRATION)).order_id for _ in range(3)]
    undone = (await client.order(customer, "100", SAGA_MODE_ORCHESTRATION)).order_id

    async def listed(
        status: sagas.SagaStatus.ValueType, size: int, token: str = ""
    ) -> sagas.ListSagasResponse:
        request = sagas.ListSagasRequest(status=status, page_size=size, page_token=token)
        found: sagas.ListSagasResponse = await client.sagas.ListSagas(request, timeout=PATIENCE)
        return found

    ended = (sagas.SAGA_STATUS_COMPLETED, sagas.SAGA_STATUS_COMPENSATED)

    async def all_ended() -> bool:
        newest = (await listed(sagas.SAGA_STATUS_UNSPECIFIED, 4)).sagas
        return {saga.order_id for saga in newest if saga.status in ended} == {*done, undone}

    await until(all_ended)
    first = await listed(sagas.SAGA_STATUS_COMPLETED, 2)
    assert [saga.order_id for saga in first.sagas] == [done[2], done[1]]
    second = await listed(sagas.SAGA_STATUS_COMPLETED, 1, first.next_page_token)
    assert [saga.order_id for saga in second.sagas] == [done[0]]
    [compensated] = (await listed(sagas.SAGA_STATUS_COMPENSATED, 1)).sagas
    assert (compensated.order_id, compensated.reason) == (undone, "INSUFFICIENT_CREDIT")


async def test_a_choreographed_order_has_no_saga(client: Client) -> None:
    order = await client.order(await client.customer(), "1", SAGA_MODE_CHOREOGRAPHY)
    refused = await refusal(
        client.sagas.GetSaga(sagas.GetSagaRequest(order_id=order.order_id), timeout=PATIENCE)
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "SAGA_NOT_FOUND")
