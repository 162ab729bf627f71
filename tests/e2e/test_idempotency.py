"""One effect and one answer for a request_id: at once, later, after a restart, and for a client that gave up."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from shop.customers.v1.customer_service_pb2 import ChangeCreditLimitRequest, CreateCustomerRequest
from shop.orders.v1.order_pb2 import ORDER_STATE_CANCELLED
from shop.orders.v1.order_service_pb2 import CancelOrderRequest, CreateOrderRequest
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from stack.clients import retried
from tests.controls import new_id, wire
from tests.e2e.client import PATIENCE, Client, refusal
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="package")

REUSED = (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


def order_for(customer_id: str, total: str = "1") -> CreateOrderRequest:
    return CreateOrderRequest(request_id=new_id(), customer_id=customer_id, total=wire(total))


async def orders_of(client: Client, customer_id: str) -> int:
    """How many orders of a customer the log has."""
    created = "type = 'shop.orders.v1.OrderCreated' AND position(convert_to($1, 'UTF8') IN payload) > 0"
    return await client.count("orders", created, customer_id)


async def test_the_same_request_at_once_has_one_effect_and_one_answer(client: Client, replica: str) -> None:
    customer = await client.customer()
    request = order_for(customer)
    async with grpc.aio.insecure_channel(replica) as channel:
        stubs: list[Any] = [client.orders, OrderServiceStub(channel)]
        calls = [stubs[n % 2].CreateOrder(request, timeout=PATIENCE) for n in range(20)]
        answers = await asyncio.gather(*calls)
    assert all(answer == answers[0] for answer in answers)
    assert await orders_of(client, customer) == 1


async def test_the_same_request_after_a_restart_has_the_same_answer(client: Client) -> None:
    customer = await client.customer()
    request = order_for(customer)
    first = await client.orders.CreateOrder(request, timeout=PATIENCE)
    [*_, approved] = await client.watch(first.order_id, first.consistency_token)
    await client.kill("order_svc")
    again = await retried(client.orders.CreateOrder, request)
    assert again == first, "also the state, which is another by now"
    assert (await client.get(first.order_id)).state == approved.state
    assert await orders_of(client, customer) == 1


async def test_upper_case_is_the_same_id(client: Client) -> None:
    customer = await client.customer()
    request = order_for(customer)
    first = await client.orders.CreateOrder(request, timeout=PATIENCE)
    request.request_id = request.request_id.upper()
    assert await client.orders.CreateOrder(request, timeout=PATIENCE) == first
    request.customer_id = request.customer_id.upper()
    assert await client.orders.CreateOrder(request, timeout=PATIENCE) == first


async def test_a_customer_is_created_and_changed_once(client: Client) -> None:
    create = CreateCustomerRequest(request_id=new_id(), name="Ada", credit_limit=wire("15"))
    answers = await asyncio.gather(
        *[client.customers.CreateCustomer(create, timeout=PATIENCE) for _ in range(20)]
    )
    assert all(answer == answers[0] for answer in answers)
    customer = answers[0].customer_id
    change = ChangeCreditLimitRequest(request_id=new_id(), customer_id=customer, credit_limit=wire("20"))
    first = await client.customers.ChangeCreditLimit(change, timeout=PATIENCE)
    await client.limit(customer, "30")
    assert await client.customers.ChangeCreditLimit(change, timeout=PATIENCE) == first
    changed = await client.count("customers", "stream_id = $1", customer)
    assert changed == 3, "created, changed to 20, changed to 30: the repeat did not set it back"


async def test_a_cancellation_is_answered_again(client: Client) -> None:
    order = await client.order(await client.customer())
    cancel = CancelOrderRequest(request_id=new_id(), order_id=order.order_id)
    first = await client.orders.CancelOrder(cancel, timeout=PATIENCE)
    assert first.state == ORDER_STATE_CANCELLED
    assert await client.orders.CancelOrder(cancel, timeout=PATIENCE) == first


async def test_another_payload_under_the_same_id_is_refused(client: Client) -> None:
    customer = await client.customer()
    request = order_for(customer, "1")
    await client.orders.CreateOrder(request, timeout=PATIENCE)
    request.total.CopyFrom(wire("2"))
    refused = await refusal(client.orders.CreateOrder(request, timeout=PATIENCE))
    assert (refused.code, refused.reason) == REUSED
    assert refused.facts["request_id"] == request.request_id
    assert await orders_of(client, customer) == 1


async def test_another_payload_at_once_is_refused(client: Client) -> None:
    customer = await client.customer()
    requests = [order_for(customer, str(total)) for total in range(1, 9)]
    for request in requests:
        request.request_id = requests[0].request_id
    calls = [client.orders.CreateOrder(request, timeout=PATIENCE) for request in requests]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes) == len(requests) - 1
    assert await orders_of(client, customer) == 1


async def test_an_id_is_good_for_one_method_of_a_service(client: Client) -> None:
    request = order_for(await client.customer())
    created = await client.orders.CreateOrder(request, timeout=PATIENCE)
    cancel = CancelOrderRequest(request_id=request.request_id, order_id=created.order_id)
    refused = await refusal(client.orders.CancelOrder(cancel, timeout=PATIENCE))
    assert (refused.code, refused.reason) == REUSED
    customer = CreateCustomerRequest(request_id=new_id(), name="Ada", credit_limit=wire("1"))
    made = await client.customers.CreateCustomer(customer, timeout=PATIENCE)
    change = ChangeCreditLimitRequest(
        request_id=customer.request_id, customer_id=made.customer_id, credit_limit=wire("2")
    )
    refused = await refusal(client.customers.ChangeCreditLimit(change, timeout=PATIENCE))
    assert (refused.code, refused.reason) == REUSED


async def test_a_refusal_uses_up_no_id(client: Client) -> None:
    customer = new_id()
    change = ChangeCreditLimitRequest(request_id=new_id(), customer_id=customer, credit_limit=wire("2"))
    refused = await refusal(client.customers.ChangeCreditLimit(change, timeout=PATIENCE))
    assert refused.reason == "CUSTOMER_NOT_FOUND"
    create = CreateCustomerRequest(customer_id=customer, name="Ada", credit_limit=wire("1"))
    await client.customers.CreateCustomer(create, timeout=PATIENCE)
    await client.customers.ChangeCreditLimit(change, timeout=PATIENCE)


async def test_a_client_cut_off_while_its_order_is_written_learns_the_outcome(client: Client) -> None:
    customer = await client.customer()
    request = order_for(customer)
    async with client.held_up("orders"):
        cut = await refusal(client.orders.CreateOrder(request, timeout=0.5))
        assert cut.code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert await orders_of(client, customer) == 0
        early = client.orders.CreateOrder(request, timeout=PATIENCE)

    async def recorded() -> bool:
        stored = "SELECT count(*) FROM requests WHERE request_id = $1"
        return bool(await client.fetch("orders", stored, request.request_id) == 1)

    await until(recorded)
    assert await client.orders.CreateOrder(request, timeout=PATIENCE) == await early
    assert await orders_of(client, customer) == 1
    [*_, order] = await client.watch((await early).order_id, (await early).consistency_token)
    assert order.customer_id == customer


async def test_a_deadline_of_a_millisecond_leaves_an_outcome_that_a_retry_learns(client: Client) -> None:
    customer = await client.customer("1000")
    requests = [order_for(customer) for _ in range(20)]
    outcomes = await asyncio.gather(
        *[client.orders.CreateOrder(request, timeout=0.001) for request in requests], return_exceptions=True
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
    assert {error.code() for error in errors} <= {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert errors
    # A retry may be told to come later, while as many orders as there is room for are under way.
    answers = [await retried(client.orders.CreateOrder, request) for request in requests]
    for outcome, answer in zip(outcomes, answers, strict=True):
        assert isinstance(outcome, grpc.aio.AioRpcError) or outcome == answer
    assert await orders_of(client, customer) == len(requests)
