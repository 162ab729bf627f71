"""Bad input: each with its code and its reason or its fields, and nothing of it in any log."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from shop.customers.v1.customer_service_pb2 import ChangeCreditLimitRequest, CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import (
    CancelOrderRequest,
    CreateOrderRequest,
    SetSagaModeRequest,
)
from shop.queries.v1.customer_query_service_pb2 import (
    GetCustomerRequest,
    GetOrderHistoryRequest,
    ListCustomersRequest,
)
from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderTimelineRequest,
    ListOrdersRequest,
    WatchOrderRequest,
)
from shop.sagas.v1.saga_service_pb2 import GetSagaRequest, ListSagasRequest, RetrySagasRequest
from tests.controls import new_id, wire
from tests.e2e.client import DATABASES, PATIENCE, Client, Refusal, refusal, refusal_of
from twinlog.rpc import PageTokens
from twinlog.v1.dead_letter_service_pb2 import ListDeadLettersRequest
from twinlog.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub

pytestmark = pytest.mark.asyncio(loop_scope="package")

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOBODY = "0190a000-0000-7000-8000-0000000000ff"
"""A well-formed id that nothing has."""
GARBLED_IDS = {
    "no uuid": "order-1",
    "no dashes": NOBODY.replace("-", ""),
    "in braces": f"{{{NOBODY}}}",
    "too long": NOBODY + "0",
    "very long": "a" * 10_000,
    "padded": f" {NOBODY[1:]}",
    "bad digit": NOBODY.replace("f", "g"),
    "line break": NOBODY[:-1] + "\n",
    "other digits": NOBODY.replace("0", "٠"),
    "nil": "00000000-0000-0000-0000-000000000000",
    "sql": "' OR 1=1 --",
}
BAD_MONEY: dict[str, tuple[Money, str]] = {
    "missing": (Money(), ""),
    "no currency": (Money(units=1), ".currency_code"),
    "unknown currency": (wire("1", "ZZZ"), ".currency_code"),
    "lower case": (wire("1", "eur"), ".currency_code"),
    "not ASCII": (wire("1", "ЕUR"), ".currency_code"),
    "long currency": (wire("1", "E" * 10_000), ".currency_code"),
    "negative": (wire("-1"), ""),
    "negative nanos": (wire("-0.000000001"), ""),
    "nanos too many": (Money(currency_code="EUR", units=1, nanos=10**9), ".nanos"),
    "nanos too few": (Money(currency_code="EUR", nanos=-(10**9)), ".nanos"),
    "signs differ": (Money(currency_code="EUR", units=1, nanos=-1), ".nanos"),
    "huge": (Money(currency_code="EUR", units=2**63 - 1), ".units"),
    "hugely negative": (Money(currency_code="EUR", units=-(2**63)), ".units"),
    "just too much": (Money(currency_code="EUR", units=10**15, nanos=1), ".units"),
}
BAD_NAMES = {
    "missing": "",
    "blank": " \t ",
    "zero-width": "\u200b",
    "filler": "\u3164\u2800\ufe0f",
    "too long": "A" * 201,
    "very long": "A" * 100_000,
    "padded": " Ada",
    "line break": "Ada\nLovelace",
    "null": "A\0da",
    "bidi": "A\u202eda",
    "line separator": "A\u2028da",
}
BAD_TOKENS = {
    "garbage": "rubbish",
    "other log": "payments:1",
    "negative": "orders:-1",
    "twice": "orders:1,orders:2",
    "overflow": "orders:9223372036854775808",
    "very long": "orders:1," * 10_000,
    "no position": "orders:",
}
TOTAL = wire("1")


def create(**changes: Any) -> CreateOrderRequest:
    return CreateOrderRequest(**{"customer_id": NOBODY, "total": TOTAL, **changes})


def customer(**changes: Any) -> CreateCustomerRequest:
    return CreateCustomerRequest(**{"name": "Ada", "credit_limit": TOTAL, **changes})


def limit(**changes: Any) -> ChangeCreditLimitRequest:
    return ChangeCreditLimitRequest(**{"customer_id": NOBODY, "credit_limit": TOTAL, **changes})


Case = tuple[str, Message, set[str]]


def cases() -> list[Case]:
    """Name, request, and the fields that the refusal names."""
    found: list[Case] = [
        ("create without ids", CreateOrderRequest(total=TOTAL), {"customer_id"}),
        ("create without anything", CreateOrderRequest(), {"customer_id", "total"}),
        ("create for nothing", create(total=wire("0")), {"total"}),
        ("create in an unknown mode", create(saga_mode=42), {"saga_mode"}),
        ("create in a negative mode", create(saga_mode=-1), {"saga_mode"}),
        ("customer without anything", CreateCustomerRequest(), {"name", "credit_limit"}),
        ("limit without anything", ChangeCreditLimitRequest(), {"customer_id", "credit_limit"}),
        (
            "everything wrong at once",
            limit(request_id="x", customer_id="y", credit_limit=wire("-1")),
            {"request_id", "customer_id", "credit_limit"},
        ),
        ("cancel without an id", CancelOrderRequest(), {"order_id"}),
        ("no mode", SetSagaModeRequest(), {"saga_mode"}),
        ("unknown mode", SetSagaModeRequest(saga_mode=3), {"saga_mode"}),  # type: ignore[arg-type]
        ("orders in an unknown state", ListOrdersRequest(state=9), {"state"}),  # type: ignore[arg-type]
        ("sagas in an unknown status", ListSagasRequest(status=9), {"status"}),  # type: ignore[arg-type]
        ("saga without a key", GetSagaRequest(), {"key"}),
        ("saga with an empty key", GetSagaRequest(saga_id=""), {"saga_id"}),
    ]
    for name, id in GARBLED_IDS.items():
        found += [
            (f"create, {name} customer", create(customer_id=id), {"customer_id"}),
            (f"create, {name} order", create(order_id=id), {"order_id"}),
            (f"create, {name} request", create(request_id=id), {"request_id"}),
            (f"cancel, {name} order", CancelOrderRequest(order_id=id), {"order_id"}),
            (f"cancel, {name} request", CancelOrderRequest(order_id=NOBODY, request_id=id), {"request_id"}),
            (f"customer, {name} id", customer(customer_id=id), {"customer_id"}),
            (f"customer, {name} request", customer(request_id=id), {"request_id"}),
            (f"limit, {name} customer", limit(customer_id=id), {"customer_id"}),
            (f"limit, {name} request", limit(request_id=id), {"request_id"}),
            (f"create, {name} everything", create(request_id=id, order_id=id), {"request_id", "order_id"}),
            (f"retry, {name} request", RetrySagasRequest(request_id=id), {"request_id", "selection"}),
            (f"get, {name}", GetOrderRequest(order_id=id), {"order_id"}),
            (f"watch, {name}", WatchOrderRequest(order_id=id), {"order_id"}),
            (f"timeline, {name}", GetOrderTimelineRequest(order_id=id), {"order_id"}),
            (f"list, {name} customer", ListOrdersRequest(customer_id=id), {"customer_id"}),
            (f"get, {name} customer", GetCustomerRequest(customer_id=id), {"customer_id"}),
            (f"history, {name}", GetOrderHistoryRequest(customer_id=id), {"customer_id"}),
            (f"saga, {name}", GetSagaRequest(saga_id=id), {"saga_id"}),
            (f"saga, {name} order", GetSagaRequest(order_id=id), {"order_id"}),
        ]
    for name, (money, suffix) in BAD_MONEY.items():
        found += [
            (f"create, {name} total", create(total=money), {f"total{suffix}"}),
            (f"customer, {name} limit", customer(credit_limit=money), {f"credit_limit{suffix}"}),
            (f"limit, {name} limit", limit(credit_limit=money), {f"credit_limit{suffix}"}),
        ]
    for code in ("XXX", "XTS"):
        money = wire("1", code)
        found += [(f"customer, {code} limit", customer(credit_limit=money), {"credit_limit.currency_code"})]
    found += [(f"customer, {name} name", customer(name=given), {"name"}) for name, given in BAD_NAMES.items()]
    for name, token in BAD_TOKENS.items():
        ids: dict[str, Any] = {"consistency_token": token}
        found += [
            (f"get, {name} token", GetOrderRequest(order_id=NOBODY, **ids), {"consistency_token"}),
            (f"watch, {name} token", WatchOrderRequest(order_id=NOBODY, **ids), {"consistency_token"}),
            (
                f"timeline, {name} token",
                GetOrderTimelineRequest(order_id=NOBODY, **ids),
                {"consistency_token"},
            ),
            (f"list, {name} token", ListOrdersRequest(**ids), {"consistency_token"}),
            (
                f"get customer, {name} token",
                GetCustomerRequest(customer_id=NOBODY, **ids),
                {"consistency_token"},
            ),
            (f"customers, {name} token", ListCustomersRequest(**ids), {"consistency_token"}),
            (
                f"history, {name} token",
                GetOrderHistoryRequest(customer_id=NOBODY, **ids),
                {"consistency_token"},
            ),
        ]
    for size in (-1, 1001, 2**31 - 1, -(2**31)):
        found += [
            (f"orders by {size}", ListOrdersRequest(page_size=size), {"page_size"}),
            (f"customers by {size}", ListCustomersRequest(page_size=size), {"page_size"}),
            (f"history by {size}", GetOrderHistoryRequest(customer_id=NOBODY, page_size=size), {"page_size"}),
            (f"sagas by {size}", ListSagasRequest(page_size=size), {"page_size"}),
        ]
    for token in ("rubbish", "AAAA", "A" * 10_000, "%%%", "é"):
        found += [
            (f"orders from {token:.7}", ListOrdersRequest(page_token=token), {"page_token"}),
            (f"customers from {token:.7}", ListCustomersRequest(page_token=token), {"page_token"}),
            (
                f"history from {token:.7}",
                GetOrderHistoryRequest(customer_id=NOBODY, page_token=token),
                {"page_token"},
            ),
            (f"sagas from {token:.7}", ListSagasRequest(page_token=token), {"page_token"}),
        ]
    return found


async def send(client: Client, request: Message, correlation_id: str = "") -> Refusal:
    """How the method that takes such a request refuses it."""
    stubs: list[Any] = [
        client.orders,
        client.customers,
        client.sagas,
        client.order_queries,
        client.customer_queries,
    ]
    name = type(request).__name__.removesuffix("Request")
    method = next(getattr(stub, name) for stub in stubs if hasattr(stub, name))
    call = method(request, timeout=PATIENCE, metadata=(("x-correlation-id", correlation_id or new_id()),))
    if name != "WatchOrder":
        return await refusal(call)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        [_ async for _ in call]
    return refusal_of(refused.value)


async def appended(client: Client, correlation_id: str) -> int:
    """How many events a call set off, in all logs."""
    condition = "metadata->>'correlation_id' = $1"
    return sum([await client.count(log, condition, correlation_id) for log in DATABASES])


async def test_each_bad_field_is_named_and_nothing_of_the_request_is_appended(client: Client) -> None:
    """Nor of one that the rules refuse, nor is its request_id used up."""
    customer_id = await client.customer()
    rejected = await client.order(NOBODY)
    correlation_id, request_ids = new_id(), []

    async def sent(request: Any) -> Refusal:
        if "request_id" in request.DESCRIPTOR.fields_by_name and not request.request_id:
            request_ids.append(new_id())
            request.request_id = request_ids[-1]
        return await send(client, request, correlation_id)

    refused = {name: (await sent(request), fields) for name, request, fields in cases()}
    assert len(refused) == len(cases())
    assert {
        name: said
        for name, (said, fields) in refused.items()
        if (said.code, said.reason, said.fields) != (INVALID, "INVALID_ARGUMENT", fields)
    } == {}
    for against_the_rules in (
        limit(),
        limit(customer_id=customer_id, credit_limit=wire("1", "USD")),
        CancelOrderRequest(order_id=NOBODY),
        CancelOrderRequest(order_id=rejected.order_id),
        create(order_id=rejected.order_id),
        customer(customer_id=customer_id),
    ):
        await sent(against_the_rules)
    assert await appended(client, correlation_id) == 0
    for log in DATABASES:
        stored = "SELECT count(*) FROM requests WHERE request_id = ANY ($1::text[])"
        assert await client.fetch(log, stored, request_ids) == 0
    # And the counting counts: a good request has that many.
    good = CreateOrderRequest(customer_id=NOBODY, total=TOTAL)
    await client.orders.CreateOrder(good, metadata=(("x-correlation-id", correlation_id),), timeout=PATIENCE)
    assert await appended(client, correlation_id) >= 1


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (CancelOrderRequest(order_id=NOBODY), "ORDER_NOT_FOUND"),
        (GetOrderRequest(order_id=NOBODY), "ORDER_NOT_FOUND"),
        (WatchOrderRequest(order_id=NOBODY), "ORDER_NOT_FOUND"),
        (GetOrderTimelineRequest(order_id=NOBODY), "ORDER_NOT_FOUND"),
        (limit(), "CUSTOMER_NOT_FOUND"),
        (GetCustomerRequest(customer_id=NOBODY), "CUSTOMER_NOT_FOUND"),
        (GetOrderHistoryRequest(customer_id=NOBODY), "CUSTOMER_NOT_FOUND"),
        (GetSagaRequest(order_id=NOBODY), "SAGA_NOT_FOUND"),
        (GetSagaRequest(saga_id=NOBODY), "SAGA_NOT_FOUND"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else value,
)
async def test_what_is_not_there_is_not_found(client: Client, request_: Message, reason: str) -> None:
    refused = await send(client, request_)
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, reason)


async def test_a_customer_whose_order_was_refused_for_want_of_it_is_not_found(client: Client) -> None:
    unknown = new_id()
    await client.order(unknown)
    refused = await send(client, GetCustomerRequest(customer_id=unknown))
    assert refused.reason == "CUSTOMER_NOT_FOUND"
    assert (await send(client, limit(customer_id=unknown))).reason == "CUSTOMER_NOT_FOUND"


async def test_an_id_is_used_once(client: Client) -> None:
    customer_id = await client.customer()
    order = await client.order(customer_id)
    again = await send(client, create(order_id=order.order_id, customer_id=customer_id))
    assert (again.code, again.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ORDER_EXISTS")
    again = await send(client, customer(customer_id=customer_id))
    assert (again.code, again.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CUSTOMER_EXISTS")


async def test_the_currency_of_a_limit_stays(client: Client) -> None:
    customer_id = await client.customer("15", "EUR")
    refused = await send(client, limit(customer_id=customer_id, credit_limit=wire("15", "USD")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CURRENCY_MISMATCH")
    assert (refused.facts["currency"], refused.facts["given"]) == ("EUR", "USD")


async def test_a_page_token_is_good_for_its_own_query_only(client: Client) -> None:
    customers = [await client.customer(), await client.customer()]
    for customer_id in customers:
        for _ in range(2):
            await client.order(customer_id, "0.01")
    mine = ListOrdersRequest(customer_id=customers[0], page_size=1)
    token = (await client.order_queries.ListOrders(mine, timeout=PATIENCE)).next_page_token
    assert token
    forged = token[:-1] + ("A" if token[-1] != "A" else "Q")
    for request in (
        ListOrdersRequest(page_token=token),
        ListOrdersRequest(customer_id=customers[1], page_token=token),
        ListOrdersRequest(customer_id=customers[0], state=2, page_token=token),  # type: ignore[arg-type]
        ListOrdersRequest(customer_id=customers[0], page_token=forged),
        GetOrderHistoryRequest(customer_id=customers[0], page_token=token),
        ListCustomersRequest(page_token=token),
        ListSagasRequest(page_token=token),
    ):
        assert (await send(client, request)).fields == {"page_token"}, request


async def test_a_page_token_signed_with_what_anybody_knows_is_refused(client: Client) -> None:
    """Such as the text that dead letters were once signed with, or another service's secret."""
    shop = client.shop
    logs = {
        shop.orders: "orders",
        shop.customers: "customers",
        shop.sagas: "sagas",
        shop.queries: "projector",
    }
    filters = repr(("dead letters", "", "", ""))
    for address, log in logs.items():
        async with grpc.aio.insecure_channel(address) as channel:
            ask = DeadLetterServiceStub(channel).ListDeadLetters
            for key in (b"\0", f"dead letters of {log}".encode(), log.encode(), b"page tokens"):
                token = PageTokens(key).issue(filters, ("order_svc.orders", 1))
                refused = await refusal(ask(ListDeadLettersRequest(page_token=token), timeout=PATIENCE))
                assert (refused.code, refused.fields) == (INVALID, {"page_token"})
    secrets = {await client.fetch(log, "SELECT secret FROM page_token_secret") for log in DATABASES}
    assert {len(secret) for secret in secrets} == {32}
    assert len(secrets) == len(DATABASES)


@pytest.mark.parametrize("request_", [customer(name="A" * 2**20), GetOrderRequest(order_id="A" * 2**20)])
async def test_a_message_of_a_mebibyte_is_too_large(client: Client, request_: Message) -> None:
    correlation_id = new_id()
    refused = await send(client, request_, correlation_id)
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await appended(client, correlation_id) == 0


async def test_bytes_that_are_no_request_are_refused(client: Client) -> None:
    async with grpc.aio.insecure_channel(client.shop.orders) as channel:
        call = channel.unary_unary("/shop.orders.v1.OrderService/CreateOrder")
        refused = await refusal(call(b"\xff" * 20, timeout=PATIENCE))
    assert (refused.code, refused.fields) == (INVALID, {"request"})


async def test_the_largest_amounts_are_kept_exactly(client: Client) -> None:
    most = "999999999999999.999999999"
    customer_id = await client.customer(most)
    await client.order(customer_id, most)
    await client.reserves(customer_id, most)
    seen = await client.get_customer(customer_id)
    assert (seen.credit_limit, seen.available) == (wire(most), wire("0"))
