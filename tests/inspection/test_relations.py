"""Causes, effects and correlated events, and the states between them, as operators ask for them."""

from __future__ import annotations

import json
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from saga_orchestrator.credit_saga import saga_id
from shop.orders.v1.order_service_pb2 import SetSagaModeRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_ORCHESTRATION
from tests.inspection.conftest import customer, inspection, order
from tests.memory_shop import MemoryShop, NoContext
from twinlog import Metadata, Schema
from twinlog.model.differences import differences
from twinlog.rpc import stream_states
from twinlog.rpc.logged_event import logged
from twinlog.v1 import inspection_pb2 as pb


async def correlated(stub: Any, **request: Any) -> tuple[list[pb.LoggedEvent], pb.ReadCorrelatedResponse]:
    responses = [each async for each in stub.ReadCorrelated(pb.ReadCorrelatedRequest(**request))]
    return [each.event for each in responses[:-1]], responses[-1]


async def test_an_event_tells_its_effects_in_its_log_and_its_cause_beyond(shop: MemoryShop) -> None:
    order_id = await order(shop, await customer(shop))
    await shop.settle()
    async with inspection(shop.order_svc) as stub:
        traced = await stub.TraceEvent(pb.TraceEventRequest(address="orders/2"))
    assert traced.event.stream == f"order/{order_id}"
    assert traced.event.type.endswith("OrderApproved")
    assert traced.beyond.startswith("customers/")
    assert not traced.causes
    async with inspection(shop.customer_svc) as stub:
        there = await stub.TraceEvent(pb.TraceEventRequest(address=traced.beyond))
        effects = await stub.TraceEvent(
            pb.TraceEventRequest(address="orders/1", recorded_at=traced.event.recorded_at)
        )
    assert (there.event.address, there.beyond) == (traced.beyond, "orders/1")
    assert [each.address for each in effects.effects] == [traced.beyond]
    assert not effects.HasField("event")
    assert effects.looked_at[0].upto == len(shop.logs["customers"].events)


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("orders/99", grpc.StatusCode.NOT_FOUND),
        ("orders", grpc.StatusCode.INVALID_ARGUMENT),
        ("customers/1", grpc.StatusCode.INVALID_ARGUMENT),
        (f"orders/{2**63}", grpc.StatusCode.INVALID_ARGUMENT),
        (f"orders/{'9' * 5_000}", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_an_event_that_cannot_be_traced_is_refused(
    shop: MemoryShop, address: str, code: grpc.StatusCode
) -> None:
    async with inspection(shop.order_svc) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.TraceEvent(pb.TraceEventRequest(address=address))
    assert refused.value.code() is code
    # Of an address that is none, nothing else is asked.
    asked = "recorded_at" in (refused.value.details() or "")
    assert asked == (address == "customers/1")


async def test_what_a_request_set_off_is_found_in_each_log(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    orders = [await order(shop, customer_id) for _ in range(3)]
    await shop.settle()
    one = next(event for event in shop.logs["orders"].events if event.stream.id == orders[1])
    at = logged(one, Schema()).recorded_at
    ids = [one.metadata.correlation_id]
    for node, types in (
        (shop.order_svc, ["OrderCreated", "OrderApproved"]),
        (shop.customer_svc, ["CreditReserved"]),
    ):
        async with inspection(node) as stub:
            for around in ([at], []):
                events, last = await correlated(stub, correlation_ids=ids, around=around)
                assert [event.type.rpartition(".")[2] for event in events] == types
                assert {event.correlation_id for event in events} == {*ids}
                assert last.complete
                assert not last.more
            events, last = await correlated(stub, correlation_ids=ids, limit=1)
            assert (len(events), last.more) == (1, len(types) > 1)


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"correlation_ids": [""]},
        {"correlation_ids": ["a"] * 101},
        {"correlation_ids": ["a"], "around": [Timestamp(seconds=10**15)]},
    ],
)
async def test_what_cannot_be_correlated_is_refused(shop: MemoryShop, request_: dict[str, Any]) -> None:
    async with inspection(shop.order_svc) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await correlated(stub, **request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_stream_tells_what_each_event_changed(shop: MemoryShop) -> None:
    order_id = await order(shop, await customer(shop), 7)
    await shop.settle()
    async with inspection(shop.order_svc) as stub:
        whole = await stub.GetStream(pb.GetStreamRequest(stream=f"order/{order_id}", with_states=True))
        last = await stub.GetStream(
            pb.GetStreamRequest(stream=f"order/{order_id}", newest=1, with_states=True)
        )
    assert [each.version for each in whole.states] == [1, 2]
    assert MessageToDict(whole.states[-1].state) == MessageToDict(whole.state)
    changes = {each.path: (each.before, each.after) for each in whole.states[1].changes}
    assert "approved" in " ".join(changes["state"]).lower()
    [only] = last.states
    assert only == whole.states[1]


async def test_without_a_state_there_are_none_between(shop: MemoryShop) -> None:
    order_id = await order(shop, await customer(shop))
    shop.order_svc.inspected.aggregates = []
    async with inspection(shop.order_svc) as stub:
        found = await stub.GetStream(pb.GetStreamRequest(stream=f"order/{order_id}", with_states=True))
    assert found.events
    assert not found.states
    assert found.without_state


async def test_so_many_states_are_told_at_once_and_no_more(shop: MemoryShop) -> None:
    async with inspection(shop.order_svc) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStream(
                pb.GetStreamRequest(stream="order/x", with_states=True, newest=stream_states.MOST_STATES + 1)
            )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_long_stream_keeps_the_newest_states(
    shop: MemoryShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_states, "_MOST_BYTES", 1_500)
    customer_id = await customer(shop)
    for _ in range(9):
        await order(shop, customer_id)
    await shop.settle()
    async with inspection(shop.customer_svc) as stub:
        found = await stub.GetStream(pb.GetStreamRequest(stream=f"customer/{customer_id}", with_states=True))
    kept = [each.HasField("state") for each in found.states]
    assert (kept[0], kept[-1]) == (False, True)
    assert kept == sorted(kept)
    assert all(each.changes for each in found.states[1:])


def test_differences_are_told_by_path() -> None:
    before = {"a": 1, "b": {"c": [1, 2], "gone": None}, "same": [1]}
    after = {"a": "x", "b": {"c": [1, 3, 4]}, "same": [1], "new": {"d": True}}
    told = {each.path: (each.before, each.after) for each in differences(before, after)}
    assert told == {
        "a": ("1", '"x"'),
        "b.c.1": ("2", "3"),
        "b.c.2": ("", "4"),
        "b.gone": ("null", ""),
        "new": ("", json.dumps({"d": True})),
    }


async def test_what_the_domain_says_of_an_event_is_told(shop: MemoryShop) -> None:
    await customer(shop)
    [event, *_] = shop.logs["customers"].events
    told = logged(event._replace(metadata=Metadata("c", "rpc/Add", "", "ann", {"tenant": "acme"})), Schema())
    assert dict(told.extra) == {"tenant": "acme"}
    assert isinstance(told.payload, Struct)


async def test_the_state_of_a_saga_is_told_in_words(shop: MemoryShop) -> None:
    await shop.orders.SetSagaMode(SetSagaModeRequest(saga_mode=SAGA_MODE_ORCHESTRATION), NoContext())
    order_id = await order(shop, await customer(shop), 7)
    await shop.settle()
    request = pb.GetStreamRequest(stream=f"credit_saga/{saga_id(order_id)}", with_states=True)
    async with inspection(shop.saga_orchestrator) as stub:
        found = await stub.GetStream(request)
    begun = MessageToDict(found.states[0].state)
    assert begun["trigger"]["order_id"] == order_id
    assert begun["awaited"][0]["step"] == 0
    assert "CreditReserved" in MessageToDict(found.state)["replies"]["reserve credit"]["@type"]
