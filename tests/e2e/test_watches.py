"""Live queries of the running shop: by order, by customer, by filter, and on from a token after whatever happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED, ORDER_STATE_PENDING
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.queries.v1.customer_query_service_pb2 import WatchCustomerRequest
from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    ListOrdersRequest,
    Order,
    WatchOrderRequest,
    WatchOrdersRequest,
    WatchOrdersResponse,
)
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from tests.controls import new_id, wire
from tests.docs.test_domain_pages import module
from tests.e2e.client import PATIENCE, Client, refusal, too_late
from tests.waiting import GOING_AWAY, until

pytestmark = pytest.mark.asyncio(loop_scope="package")
TOKEN, CHOICE, STALE = "twinlog-consistency-token", "twinlog-consistency", "twinlog-stale-by"
WHOSE = "twinlog-consistency-installation"
FAR = 10**15
"""A position that no log reaches."""


class Held:
    """The orders that a watcher holds, and the token to go on with."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.token = ""
        self.messages = 0

    def take(self, message: WatchOrdersResponse) -> None:
        for order in message.orders:
            before = self.orders.get(order.order_id)
            assert before is None or before.version < order.version, "nothing twice, and no step back"
            self.orders[order.order_id] = order
        for order_id in message.left_order_ids:
            del self.orders[order_id]
        self.token = message.resume_token
        self.messages += 1

    async def watch(self, client: Client, **filters: Any) -> None:
        """Watches, and again wherever it was cut off."""
        while True:
            request = WatchOrdersRequest(resume_token=self.token, **filters)
            try:
                async for message in client.order_queries.WatchOrders(request):
                    self.take(message)
            except grpc.aio.AioRpcError as error:
                assert error.code() in GOING_AWAY, error
                await asyncio.sleep(0.05)


async def messages(client: Client, **request: Any) -> AsyncGenerator[WatchOrdersResponse, None]:
    async for message in client.order_queries.WatchOrders(WatchOrdersRequest(**request), timeout=PATIENCE):
        yield message


async def test_orders_are_watched_by_customer_and_by_state(client: Client) -> None:
    customer, other = await client.customer(), await client.customer()
    old = await client.order(customer, "1")
    mine, pending = Held(), Held()
    watching = [
        asyncio.create_task(mine.watch(client, customer_id=customer)),
        asyncio.create_task(pending.watch(client, customer_id=customer, state=ORDER_STATE_PENDING)),
    ]
    await until(lambda: min(mine.messages, pending.messages) >= 1)
    assert ([*mine.orders], [*pending.orders]) == ([old.order_id], [])

    async with client.without("customer_svc"):
        new, _ = await client.create(customer, "2"), await client.create(other, "2")
        await until(lambda: new.order_id in mine.orders and new.order_id in pending.orders)
    await until(lambda: mine.orders[new.order_id].state == ORDER_STATE_APPROVED and not pending.orders)
    cancelled = await client.cancel(old.order_id)
    await client.get(old.order_id, cancelled.consistency_token)
    await until(lambda: mine.orders[old.order_id].version == 3)
    assert mine.orders.keys() == {old.order_id, new.order_id}
    for task in watching:
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


async def test_a_customer_is_watched_and_resumed(client: Client) -> None:
    customer = await client.customer("10")
    await until(lambda: _is_there(client, customer))
    watching = client.customer_queries.WatchCustomer(
        WatchCustomerRequest(customer_id=customer), timeout=PATIENCE
    )
    message = await watching.read()
    watching.cancel()
    assert message.customer.credit_limit == wire("10")
    await client.limit(customer, "20")
    await client.limit(customer, "30")
    resumed = WatchCustomerRequest(customer_id=customer, resume_token=message.resume_token)
    seen = []
    async for message in client.customer_queries.WatchCustomer(resumed, timeout=PATIENCE):
        seen.append(message.customer.credit_limit.units)
        if seen[-1] == 30:
            break
    assert seen in ([20, 30], [30]), "the states of while it was away are one or two"


async def test_an_order_that_has_ended_is_not_told_again(client: Client) -> None:
    order = await client.order(await client.customer(), "1")
    watch = client.order_queries.WatchOrder
    [told] = [m async for m in watch(WatchOrderRequest(order_id=order.order_id), timeout=PATIENCE)]
    again = WatchOrderRequest(order_id=order.order_id, resume_token=told.resume_token)
    assert [m async for m in watch(again, timeout=PATIENCE)] == []


async def test_a_watch_survives_kill_9_of_the_projector(client: Client) -> None:
    customer = await client.customer("1000")
    held = Held()
    watching = asyncio.create_task(held.watch(client, customer_id=customer))
    await until(lambda: held.messages >= 1)
    made: list[str] = []
    for _ in range(3):
        made += [(await client.create(customer, "1")).order_id for _ in range(4)]
        await client.kill("projector")
    last = await client.create(customer, "1")

    def approved(orders: Sequence[Order]) -> bool:
        return len(orders) == len(made) + 1 and all(o.state == ORDER_STATE_APPROVED for o in orders)

    await until(lambda: watching.done() or approved([*held.orders.values()]), seconds=180)
    assert not watching.done() or watching.result()
    request = ListOrdersRequest(customer_id=customer, consistency_token=last.consistency_token)
    listed = (await client.order_queries.ListOrders(request, timeout=PATIENCE, wait_for_ready=True)).orders
    assert {order.order_id: order for order in listed} == held.orders
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_changes_only_begins_with_a_token(client: Client) -> None:
    customer = await client.customer()
    await client.order(customer, "1")
    watching = messages(client, customer_id=customer, changes_only=True)
    first = await anext(watching)
    assert (len(first.orders), bool(first.resume_token)) == (0, True)
    new = await client.create(customer, "1")
    assert [order.order_id for order in (await anext(watching)).orders] == [new.order_id]
    await watching.aclose()


async def test_tokens_of_others_are_refused(client: Client) -> None:
    customer = await client.customer()
    watching = messages(client, customer_id=customer)
    token = (await anext(watching)).resume_token
    await watching.aclose()
    for wrong in (
        {"customer_id": customer, "resume_token": "nonsense"},
        {"customer_id": new_id(), "resume_token": token},
        {"resume_token": token},
    ):
        refused = await refusal(anext(messages(client, **wrong)))
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"resume_token"})


async def test_tokens_travel_as_metadata(client: Client) -> None:
    customer = await client.customer()
    call = client.orders.CreateOrder(_order(customer), timeout=PATIENCE)
    created = await call
    token = dict(list(await call.trailing_metadata()))[TOKEN]
    assert token == created.consistency_token

    request = GetOrderRequest(order_id=created.order_id)
    query = client.order_queries.GetOrder(request, timeout=PATIENCE, metadata=[(TOKEN, f"{token},others:7")])
    assert (await query).order.order_id == created.order_id
    told = dict(list(await query.trailing_metadata()))
    assert STALE not in told
    reached = dict(part.split(":") for part in told[TOKEN].split(","))
    assert int(reached["orders"]) >= int(token.partition(":")[2])

    ours = str(told[WHOSE])
    assert dict(await call.trailing_metadata())[WHOSE] == ours
    for whose, fields in ((ours, set()), ("another", {WHOSE})):
        metadata = [(TOKEN, f"orders:{FAR}"), (CHOICE, "fail"), (WHOSE, whose)]
        refused = await refusal(client.order_queries.GetOrder(request, timeout=PATIENCE, metadata=metadata))
        assert (refused.reason == "VIEW_LAGGING", refused.fields) == (not fields, fields)


async def test_who_asks_chooses_what_is_done_about_staleness(client: Client) -> None:
    order = await client.order(await client.customer(), "1")
    request = GetOrderRequest(order_id=order.order_id)

    def asked(choice: str, token: str = f"orders:{FAR}", timeout: float = PATIENCE) -> Any:
        metadata = [(TOKEN, token), (CHOICE, choice)]
        return client.order_queries.GetOrder(request, timeout=timeout, metadata=metadata)

    now = asked("now")
    assert (await now).order.order_id == order.order_id
    log, _, missing = dict(list(await now.trailing_metadata()))[STALE].partition(":")
    assert log == "orders"
    assert 0 < int(missing) < FAR
    failed = await refusal(asked("fail"))
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "VIEW_LAGGING")
    waited = await too_late(lambda seconds: asked("wait", timeout=seconds))
    assert waited.reason == "VIEW_LAGGING"
    for choice in ("now", "fail"):
        assert (await asked(choice, "orders:1")).order.order_id == order.order_id
    assert (await refusal(asked("perhaps"))).fields == {CHOICE}
    assert (await refusal(asked("now", "nonsense"))).fields == {TOKEN}


async def test_a_client_follows_and_carries_tokens_as_the_page_says(client: Client) -> None:
    page = module("watching")
    tokens = page.CarriesTokens()
    options: Any = {"interceptors": [tokens]}
    async with (
        grpc.aio.insecure_channel(client.shop.orders, **options) as orders,
        grpc.aio.insecure_channel(client.shop.queries, **options) as queries,
    ):
        created = await OrderServiceStub(orders).CreateOrder(_order(await client.customer()))
        stub = OrderQueryServiceStub(queries)
        found = await stub.GetOrder(GetOrderRequest(order_id=created.order_id), timeout=PATIENCE)
        assert found.order.order_id == created.order_id
        assert tokens.reached.keys() == {"orders", "customers", "sagas"}
    seen = []

    async def take(message: Any) -> None:
        seen.append(message.order.state)

    request = WatchOrderRequest(order_id=created.order_id)
    await page.follow(client.order_queries.WatchOrder, request, take)
    assert seen[-1] == ORDER_STATE_APPROVED
    await page.follow(client.order_queries.WatchOrder, request, take)
    assert seen.count(ORDER_STATE_APPROVED) == 1


async def _is_there(client: Client, customer_id: str) -> bool:
    try:
        return bool(await client.get_customer(customer_id))
    except grpc.aio.AioRpcError:
        return False


def _order(customer_id: str) -> CreateOrderRequest:
    return CreateOrderRequest(customer_id=customer_id, total=wire("1"))
