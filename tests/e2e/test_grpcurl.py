"""The shop as one explores it with the real grpcurl, by reflection alone."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from tests.controls import new_id
from tests.e2e.client import Client
from tests.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="package")

GRPCURL = str(Path(sys.executable).with_name("grpcurl"))
TOTAL = {"currency_code": "EUR", "units": "12", "nanos": 340_000_000}
STANDARD = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]


class Answer(NamedTuple):
    """What grpcurl says."""

    code: int
    out: str
    err: str


async def grpcurl(*arguments: str) -> Answer:
    """Runs it; without blanks in what it says of errors, since versions differ in them."""
    process = await asyncio.create_subprocess_exec(
        GRPCURL, "-plaintext", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(), err.decode().replace(" ", ""))


async def call(address: str, method: str, **request: object) -> Any:
    """The one message that a method answers with."""
    answer = await grpcurl("-d", json.dumps(request), address, method)
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


async def customer(client: Client) -> str:
    made = await call(
        client.shop.customers,
        "shop.customers.v1.CustomerService/CreateCustomer",
        name="Ada",
        credit_limit={"currency_code": "EUR", "units": "15"},
    )
    id: str = made["customer_id"]
    return id


async def test_lists_the_services_of_every_server(client: Client) -> None:
    shop = client.shop
    expected = {
        shop.orders: ["shop.orders.v1.OrderService"],
        shop.customers: ["shop.customers.v1.CustomerService"],
        shop.sagas: ["shop.sagas.v1.SagaService"],
        shop.queries: [
            "shop.queries.v1.CustomerQueryService",
            "shop.queries.v1.MomentQueryService",
            "shop.queries.v1.OrderQueryService",
        ],
    }
    for address, services in expected.items():
        sagas = ["twinlog.v1.SagaService"] if address == shop.sagas else []
        views = ["twinlog.v1.ViewService"] if address in (shop.sagas, shop.queries) else []
        assert (await grpcurl(address, "list")).out.split() == [
            *STANDARD,
            *services,
            "twinlog.v1.DeadLetterService",
            "twinlog.v1.HistoryService",
            "twinlog.v1.InspectionService",
            *sagas,
            "twinlog.v1.SnapshotService",
            *views,
        ]


def are_messages(address: str, names: Sequence[str]) -> None:
    """Fails where reflection does not know one; asks what `grpcurl describe` asks, in one process for all."""
    with grpc.insecure_channel(address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        for name in names:
            assert pool.FindMessageTypeByName(name).full_name == name


async def test_describes_every_method_and_message(client: Client) -> None:
    for address, service in (
        (client.shop.orders, "shop.orders.v1.OrderService"),
        (client.shop.queries, "shop.queries.v1.OrderQueryService"),
        (client.shop.sagas, "shop.sagas.v1.SagaService"),
        (client.shop.sagas, "twinlog.v1.SagaService"),
    ):
        described = await grpcurl(address, "describe", service)
        assert described.out.startswith(f"{service} is a service")
        requests = re.findall(r"rpc \w+ \( \.(\S+) \)", described.out)
        assert requests
        await asyncio.to_thread(are_messages, address, requests)
        assert (await grpcurl(address, "describe", requests[-1])).out.startswith(
            f"{requests[-1]} is a message"
        )
    described = await grpcurl(client.shop.orders, "describe", "shop.orders.v1.CreateOrderRequest")
    assert ".google.type.Money total = 4;" in described.out


async def test_creates_gets_watches_and_follows_an_order(client: Client) -> None:
    shop, customer_id = client.shop, await customer(client)
    created = await call(
        shop.orders,
        "shop.orders.v1.OrderService/CreateOrder",
        customer_id=customer_id,
        total=TOTAL,
        saga_mode="SAGA_MODE_ORCHESTRATION",
    )
    assert created["state"] == "ORDER_STATE_PENDING"
    named = {"order_id": created["order_id"], "consistency_token": created["consistency_token"]}
    queries = "shop.queries.v1.OrderQueryService"
    watched = await grpcurl("-d", json.dumps(named), shop.queries, f"{queries}/WatchOrder")
    assert re.findall('"state": "(.*)"', watched.out)[-1] == "ORDER_STATE_APPROVED"
    order = (await call(shop.queries, f"{queries}/GetOrder", **named))["order"]
    assert (order["state"], order["total"]["units"]) == ("ORDER_STATE_APPROVED", "12")
    await client.approved(created["order_id"], SAGA_MODE_ORCHESTRATION)
    await client.reserves(customer_id, "12.34")
    entries = (await call(shop.queries, f"{queries}/GetOrderTimeline", **named))["entries"]
    assert [entry["type"].rpartition(".")[2] for entry in entries][:4] == [
        "OrderCreated",
        "SagaStarted",
        "ReserveCredit",
        "CreditReserved",
    ]
    assert entries[0]["payload"]["total"] == TOTAL
    assert entries[0]["payload"] == json.loads(entries[0]["payload_json"])
    saga = (await call(shop.sagas, "shop.sagas.v1.SagaService/GetSaga", order_id=created["order_id"]))["saga"]
    assert saga["status"] == "SAGA_STATUS_COMPLETED"
    seen = await call(
        shop.queries, "shop.queries.v1.CustomerQueryService/GetCustomer", customer_id=customer_id
    )
    assert seen["customer"]["available"] == {"currency_code": "EUR", "units": "2", "nanos": 660_000_000}


async def test_looks_at_sagas_of_any_kind_and_says_what_cannot_be_done(client: Client) -> None:
    shop, service, customer_id = client.shop, "twinlog.v1.SagaService", await customer(client)
    created = await call(
        shop.orders,
        "shop.orders.v1.OrderService/CreateOrder",
        customer_id=customer_id,
        total=TOTAL,
        saga_mode="SAGA_MODE_ORCHESTRATION",
    )

    async def listed() -> list[Any]:
        chosen = {"subject": customer_id, "status": "SAGA_STATUS_COMPLETED"}
        found = await call(shop.sagas, f"{service}/ListSagas", filter=chosen)
        return list(found.get("sagas", []))

    async def is_listed() -> bool:
        return bool(await listed())

    await until(is_listed)
    [one] = await listed()
    shown = await call(shop.sagas, f"{service}/GetSaga", saga_id=one["saga_id"])
    assert (shown["saga"]["saga"], shown["saga"]["subject"]) == ("credit", customer_id)
    assert [step["status"] for step in shown["saga"]["steps"]] == ["SAGA_STEP_STATUS_DONE"] * 2
    theirs = await call(shop.sagas, "shop.sagas.v1.SagaService/GetSaga", order_id=created["order_id"])
    assert theirs["saga"]["saga_id"] == one["saga_id"]
    planned = await call(
        shop.sagas, f"{service}/RetrySagas", selection={"filter": {"subject": customer_id}}, dry_run=True
    )
    assert planned == {}, "it has ended"
    request = json.dumps({"selection": {"saga_id": one["saga_id"]}, "reason": "a typo"})
    answer = await grpcurl("-d", request, shop.sagas, f"{service}/AbortSagas")
    assert '"reason":"SAGA_NOTHING_AWAITED"' in answer.err


async def test_shows_errors_with_their_details(client: Client) -> None:
    request = json.dumps({"order_id": new_id()})
    answer = await grpcurl("-d", request, client.shop.orders, "shop.orders.v1.OrderService/CancelOrder")
    assert answer.code != 0
    assert "Code:NotFound" in answer.err
    assert '"reason":"ORDER_NOT_FOUND"' in answer.err
    assert '"domain":"shop"' in answer.err
    answer = await grpcurl("-d", "{}", client.shop.orders, "shop.orders.v1.OrderService/CreateOrder")
    assert "Code:InvalidArgument" in answer.err
    violations = re.findall(r'"field":"(\w+)"', answer.err)
    assert violations == ["customer_id", "total"]


async def test_asks_for_health(client: Client) -> None:
    for address, service in (
        (client.shop.orders, "shop.orders.v1.OrderService"),
        (client.shop.customers, "shop.customers.v1.CustomerService"),
        (client.shop.sagas, "shop.sagas.v1.SagaService"),
        (client.shop.sagas, "twinlog.v1.SagaService"),
        (client.shop.queries, "shop.queries.v1.OrderQueryService"),
        (client.shop.queries, ""),
    ):

        async def serves(address: str = address, service: str = service) -> bool:
            found = await call(address, "grpc.health.v1.Health/Check", service=service)
            return bool(found == {"status": "SERVING"})

        await until(serves)
