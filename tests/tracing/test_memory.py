"""Traces where time passes, where commands share a commit, and where an event fails: the services over memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from uuid import uuid4

import pytest

from shop.customers.v1.customer_service_pb2 import CreateCustomerRequest
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from tests.controls import wire
from tests.memory_shop import MemoryShop
from tests.tracing.receiver import Receiver, Span

CALLER = "00f067aa0ba902b7"
LONG = timedelta(seconds=60)


class Call:
    """A call with a trace context."""

    def __init__(self, trace_id: str, flags: str = "01") -> None:
        self.traceparent = f"00-{trace_id}-{CALLER}-{flags}"

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        return [("traceparent", self.traceparent)]

    def time_remaining(self) -> None:
        return None


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    return Receiver()


@pytest.fixture
async def shop(traces: Receiver) -> AsyncIterator[MemoryShop]:
    async with MemoryShop(timedelta(minutes=5), tracing=traces.tracing) as started:
        yield started


async def order(shop: MemoryShop, *calls: Call) -> None:
    """Creates an order for each call, all at once; nothing but the customer is there before."""
    customer = CreateCustomerRequest(name="Ada", credit_limit=wire("1000"))
    created = await shop.customers.CreateCustomer(customer, Call("0" * 31 + "1", "00"))
    await shop.settle()
    await asyncio.gather(
        *(
            shop.orders.CreateOrder(
                CreateOrderRequest(
                    customer_id=created.customer_id, total=wire("1"), saga_mode=SAGA_MODE_CHOREOGRAPHY
                ),
                call,
            )
            for call in calls
        )
    )


def named(spans: Sequence[Span], service: str, name: str) -> list[Span]:
    return [span for span in spans if (span.service, span.name) == (service, name)]


async def test_a_group_commit_links_to_its_commands(shop: MemoryShop, traces: Receiver) -> None:
    calls = [uuid4().hex for _ in range(3)]
    await order(shop, *map(Call, calls), Call(uuid4().hex, "00"))
    await shop.settle()
    first, second, third = named(traces.spans, "order_svc", "append orders")[:3]
    assert [span.trace_id for span in (first, second, third)] == calls
    assert {span.attributes["db.operation.batch.size"] for span in (first, second, third)} == {4}
    assert first.linked == [(trace_id, CALLER) for trace_id in calls[1:]]
    assert second.linked == third.linked == [(first.trace_id, first.span_id)]


async def test_the_tree_of_an_order_is_the_same_in_a_burst(shop: MemoryShop, traces: Receiver) -> None:
    calls = [uuid4().hex for _ in range(20)]
    await order(shop, *map(Call, calls))
    await shop.settle()
    assert len({traces.drawn(trace_id) for trace_id in calls}) == 1
    assert {span.trace_id for span in traces.spans} == set(calls)


async def test_what_comes_late_is_linked(shop: MemoryShop, traces: Receiver) -> None:
    call = uuid4().hex
    shop.customer_svc.works.clear()
    await order(shop, Call(call))
    await shop.settle()
    shop.clock.advance(LONG)
    shop.customer_svc.works.set()
    await shop.settle()
    [late] = named(traces.spans, "customer_svc", "process orders")
    assert (late.parent_id, late.linked) == ("", [(call, CALLER)])
    assert late.trace_id != call
    assert traces.drawn(late.trace_id).splitlines()[:2] == [
        "customer_svc: process orders OrderCreated",
        "  customer_svc: append customers CreditReserved",
    ]
    [approved] = named(traces.spans, "order_svc", "process customers")
    assert approved.trace_id == late.trace_id


async def test_what_comes_soon_is_part_of_the_trace(shop: MemoryShop, traces: Receiver) -> None:
    call = uuid4().hex
    shop.customer_svc.works.clear()
    await order(shop, Call(call))
    shop.clock.advance(LONG - timedelta(seconds=1))
    shop.customer_svc.works.set()
    await shop.settle()
    assert {span.trace_id for span in traces.spans} == {call}


async def test_a_view_that_is_late_has_one_span_for_a_batch(shop: MemoryShop, traces: Receiver) -> None:
    calls = [uuid4().hex for _ in range(5)]
    shop.projector.works.clear()
    shop.customer_svc.works.clear()
    await order(shop, *map(Call, calls))
    shop.clock.advance(LONG)
    shop.projector.works.set()
    await shop.settle()
    [late] = named(traces.spans, "projector", "process orders")
    assert late.attributes["messaging.batch.message_count"] == 5
    assert late.linked == [(call, CALLER) for call in calls]
    shop.customer_svc.works.set()
    await shop.settle()


@pytest.mark.parametrize("passed", [timedelta(0), LONG], ids=["soon", "late"])
async def test_a_timer_goes_on_with_the_trace_of_who_set_it(passed: timedelta, traces: Receiver) -> None:
    call = uuid4().hex
    async with MemoryShop(timedelta(seconds=30), tracing=traces.tracing) as shop:
        shop.customer_svc.works.clear()
        await order(shop, Call(call))
        await shop.let_pass(timedelta(seconds=30) + passed)
        [timer] = named(traces.spans, "order_svc", "timer order")
        if passed:
            assert (timer.parent_id, timer.linked) == ("", [(call, CALLER)])
        else:
            assert (timer.trace_id, timer.parent_id, timer.linked) == (call, CALLER, [])
        [append] = [
            span for span in traces.spans if span.parent_id == timer.span_id and "append" in span.name
        ]
        assert append.attributes["twinlog.event.types"] == ["OrderRejected"]
        shop.customer_svc.works.set()
        await shop.settle()


async def test_a_timer_of_who_was_not_sampled_has_no_span(traces: Receiver) -> None:
    async with MemoryShop(timedelta(seconds=30), tracing=traces.tracing) as shop:
        shop.customer_svc.works.clear()
        await order(shop, Call(uuid4().hex, "00"))
        await shop.let_pass(timedelta(seconds=30))
        shop.customer_svc.works.set()
        await shop.settle()
    assert not traces.spans
