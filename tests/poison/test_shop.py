"""Poison in the shop's logs: orders, customers, sagas, and the views and dead letters behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from customer_svc.domain import CUSTOMER
from order_svc.domain import ORDER
from projector.views import orders
from saga_orchestrator.credit_saga import CREDIT_SAGAS, saga_id
from shop.customers.v1.customer_service_pb2 import ChangeCreditLimitRequest
from shop.orders.v1.events_pb2 import OrderCreated
from shop.orders.v1.order_pb2 import ORDER_STATE_APPROVED, ORDER_STATE_PENDING, ORDER_STATE_REJECTED
from shop.orders.v1.order_service_pb2 import CancelOrderRequest
from shop.orders.v1.saga_mode_pb2 import SAGA_MODE_CHOREOGRAPHY
from shop.sagas.v1 import saga_service_pb2 as sagas
from tests.controls import MODES, Mode, wire
from tests.memory_shop import DEADLINE, MemoryShop, NoContext, Node
from tests.poison.kinds import KINDS, Kind, learn, poison, unknown_type
from tests.saga.test_operations import a_customer, order, service, shown
from tests.waiting import until
from twinlog import Recorded, StreamId
from twinlog.consume import dead_letter_operations, dead_lettering
from twinlog.consume.dead_letters import Failure
from twinlog.log import timers, unreadable
from twinlog.model.errors import StreamUnreadable
from twinlog.testing.internals import DEAD_LETTERS, AnyAggregate, Snapshot, StateCodec
from twinlog.v1.saga_pb2 import SagaStarted

STREAMS: Mapping[str, AnyAggregate] = {"orders": ORDER, "customers": CUSTOMER, "sagas": CREDIT_SAGAS}
CASES = [(log, mode) for log in STREAMS for mode in MODES if (log, mode) != ("sagas", SAGA_MODE_CHOREOGRAPHY)]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits longer than it has to."""
    monkeypatch.setattr(dead_lettering, "RETRY_FIRST_SECONDS", 0.0)
    monkeypatch.setattr(dead_letter_operations, "_LOOK_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(dead_letter_operations, "_REPLAY_EVERY_LOOKS", 0)
    monkeypatch.setattr(unreadable, "_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(timers, "_AGAIN_SECONDS", 0.0)


def owner(shop: MemoryShop, log: str) -> Node:
    return next(node for node in shop.nodes if node.log.name == log)


def parked(shop: MemoryShop) -> dict[str, int]:
    """The dead letters of every consumer that has any."""
    return {name: count for node in shop.nodes for name, count in node.dead_letters.counts().items()}


def state_of(shop: MemoryShop, order_id: str) -> int:
    """An order's state in the view; PENDING before it is there."""
    row = shop.views.tables.get("orders", {}).get(order_id)
    return row.state if row else ORDER_STATE_PENDING


@contextmanager
def breaking(log: str) -> Iterator[None]:
    """The aggregate of a log does not bear a text among its events."""
    aggregate = STREAMS[log]
    evolve = aggregate.evolve

    def breaks(state: Any, event: Message) -> Any:
        if event.DESCRIPTOR.name == "StringValue":
            raise LookupError("a defect")
        return evolve(state, event)

    object.__setattr__(aggregate, "evolve", breaks)
    try:
        yield
    finally:
        object.__setattr__(aggregate, "evolve", evolve)


def victim_of(log: str, order_id: str, customer_id: str) -> StreamId:
    """The stream of a log that is about an order or its customer."""
    id = {"orders": order_id, "customers": customer_id, "sagas": saga_id(order_id)}[log]
    return StreamId(STREAMS[log].name, id)


def call(shop: MemoryShop, log: str, order_id: str, customer_id: str) -> Awaitable[Any]:
    """A command for the stream that is poisoned."""
    if log == "orders":
        return shop.orders.CancelOrder(CancelOrderRequest(order_id=order_id), NoContext())
    if log == "customers":
        limit = ChangeCreditLimitRequest(customer_id=customer_id, credit_limit=wire("70"))
        return shop.customers.ChangeCreditLimit(limit, NoContext())
    chosen = sagas.SagaSelection(saga_id=saga_id(order_id))
    return service(shop).RetrySagas(sagas.RetrySagasRequest(selection=chosen), NoContext())


async def refused(command: Awaitable[Any], stream: StreamId, version: int, kind: Kind) -> None:
    """The command is refused, by the name of the stream and the version of the event that cannot be read."""
    with pytest.raises(StreamUnreadable) as error:
        await command
    assert (error.value.facts["stream"], error.value.facts["version"]) == (str(stream), str(version))
    assert kind.said in error.value.facts["why"]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("log", "mode"), CASES, ids=str)
async def test_what_happens_to_one_is_noticed_by_nobody_else(
    log: str, mode: Mode, make: Callable[[], Kind]
) -> None:
    """Also once its deadline has passed, and once it can be read again."""
    kind = make()
    async with MemoryShop() as shop:
        victim, neighbor = [await a_customer(shop) for _ in range(2)]
        shop.customer_svc.works.clear()
        bad, *others = [await order(shop, of, mode) for of in (victim, neighbor, neighbor)]
        await shop.settle()
        stream = victim_of(log, bad, victim)
        with breaking(log):
            version = await poison(shop.logs[log], stream, kind)
            shop.customer_svc.works.set()
            await asyncio.gather(
                refused(call(shop, log, bad, victim), stream, version, kind),
                *(call(shop, log, id, neighbor) for id in others if log == "customers"),
            )
            await shop.settle()
            others += [await order(shop, neighbor, mode) for _ in range(3)]
            await shop.settle()
            await shop.let_pass(DEADLINE + timedelta(seconds=1))
            await shop.settle()
            await refused(call(shop, log, bad, victim), stream, version, kind)

            assert {state_of(shop, id) for id in others} == {ORDER_STATE_APPROVED}
            assert parked(shop), "what calls for the stream waits"
            await named(shop, log, stream)
            shop.check()
        if kind.name == "unreadable payload":
            return
        if kind.name == "unknown type":
            learn(kind)
        await comes_right(shop, bad, victim)


async def named(shop: MemoryShop, log: str, stream: StreamId) -> None:
    """Health names the stream, its timer where it has one, and the dead letters, each as a signal of its own."""
    node = owner(shop, log)
    assert str(stream) in str(node.signals["unreadable-streams"].problem)
    if stream in shop.logs[log].timers:
        assert str(stream) in str(node.signals["timers"].problem)
    assert not any(watched.problem for each in shop.nodes for watched in [each.relay, *each.watched])


async def comes_right(shop: MemoryShop, order_id: str, customer_id: str) -> None:
    """Without an operator, everything that waited has its effects; the order ends, and its credit fits its end."""
    await until(lambda: not parked(shop), seconds=20)
    await shop.let_pass(timedelta(seconds=1))
    await shop.settle()
    await until(lambda: not parked(shop), seconds=20)
    await shop.settle()
    signals = [signal for node in shop.nodes for signal in node.signals.values()]
    await until(lambda: not any(signal.problem for signal in signals), seconds=20)
    assert state_of(shop, order_id) in (ORDER_STATE_APPROVED, ORDER_STATE_REJECTED)
    customer = (await shop.customer_svc.writer.execute(lambda tx: tx.state(CUSTOMER, customer_id))).result
    held = customer.held(order_id) or 0
    assert bool(held) == (state_of(shop, order_id) == ORDER_STATE_APPROVED)


async def test_a_saga_that_cannot_be_read_is_named_and_the_others_are_shown_and_retried() -> None:
    async with MemoryShop() as shop:
        shop.customer_svc.works.clear()
        bad, good = [await order(shop) for _ in range(2)]
        await shop.settle()
        kind = unknown_type()
        stream = victim_of("sagas", bad, "")
        version = await poison(shop.logs["sagas"], stream, kind)
        await refused(shown(shop, bad), stream, version, kind)
        assert (await shown(shop, good)).status == sagas.SAGA_STATUS_RUNNING
        await shop.settle()
        listed = (await service(shop).ListSagas(sagas.ListSagasRequest(), NoContext())).sagas
        assert {saga.order_id for saga in listed} == {bad, good}
        chosen = sagas.SagaSelection(filter=sagas.SagaFilter(status=sagas.SAGA_STATUS_RUNNING))
        done = await service(shop).RetrySagas(sagas.RetrySagasRequest(selection=chosen), NoContext())
        assert (done.selected, done.applied) == (2, 1)
        [problem] = [outcome.problem for outcome in done.outcomes if outcome.problem]
        assert f"Stream {stream} is unreadable at version {version}" in problem


async def test_a_saga_of_a_version_that_is_unknown_here_is_the_same_case() -> None:
    """A rolling upgrade in which the newer replica has begun a saga by its newer table."""
    async with MemoryShop() as shop:
        shop.customer_svc.works.clear()
        bad, good = [await order(shop) for _ in range(2)]
        await shop.settle()
        stream = victim_of("sagas", bad, "")
        log = shop.logs["sagas"]
        first = log.streams[stream][0]
        started = SagaStarted.FromString(first.payload)
        started.version = 99
        log.streams[stream][0] = first._replace(payload=started.SerializeToString())
        with pytest.raises(StreamUnreadable, match=r"at version 1: Version 99 of saga credit is unknown"):
            await shown(shop, bad)
        assert (await shown(shop, good)).status == sagas.SAGA_STATUS_RUNNING


@pytest.mark.parametrize("consumer", ["order_svc.customers", "projector.orders"])
async def test_dead_letters_that_cannot_be_read_stop_their_own_consumer_only(consumer: str) -> None:
    async with MemoryShop() as shop:
        node = next(node for node in shop.nodes if node.name == consumer.partition(".")[0])
        customer = await a_customer(shop)
        first = await order(shop, customer, SAGA_MODE_CHOREOGRAPHY)
        await shop.settle()
        handler = node.dead_letters.consumers[consumer]
        at = await handler.checkpoint()
        event = shop.logs[handler.source].events[at - 1]._replace(partition_key="nobody")
        await handler.dead_letter(event, Failure("Broken", "no", 6), at)
        kind = unknown_type()
        await poison(node.log, StreamId(DEAD_LETTERS.name, consumer), kind)
        later = await order(shop, customer, SAGA_MODE_CHOREOGRAPHY)
        cursor = next(f.cursor for f in shop.followers if f.consumer.name == consumer)
        await until(lambda: kind.said in (cursor.problem or ""), seconds=20)
        await until(lambda: kind.said in (node.dead_letters.problem or ""), seconds=20)
        problems = [each.problem for each in node.watched if each is not cursor]
        assert not any(problems)
        shop.check()
        learn(kind)
        await until(lambda: cursor.problem is None, seconds=20)
        await until(lambda: state_of(shop, later) == ORDER_STATE_APPROVED, seconds=20)
        assert state_of(shop, first) == ORDER_STATE_APPROVED


async def test_a_view_that_fails_over_an_event_holds_up_its_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with MemoryShop() as shop:
        victim, neighbor = [await a_customer(shop) for _ in range(2)]
        created = orders.created

        def breaks(event: Recorded, message: OrderCreated) -> orders.OrderRow:
            if message.customer_id == victim:
                raise LookupError("a defect")
            return created(event, message)

        monkeypatch.setattr(orders, "created", breaks)
        bad, good = [await order(shop, of, SAGA_MODE_CHOREOGRAPHY) for of in (victim, neighbor)]
        await shop.settle()
        assert (state_of(shop, bad), state_of(shop, good)) == (ORDER_STATE_PENDING, ORDER_STATE_APPROVED)
        assert parked(shop) == {"projector.orders": 2}
        assert not any(watched.problem for watched in shop.projector.watched)


@pytest.mark.parametrize(("log", "mode"), CASES, ids=str)
async def test_a_decide_that_fails_concerns_its_own_stream(log: str, mode: Mode) -> None:
    aggregate = STREAMS[log]
    decide = aggregate.decide
    async with MemoryShop() as shop:
        victim, neighbor = [await a_customer(shop) for _ in range(2)]
        shop.customer_svc.works.clear()
        bad, good = [await order(shop, of, mode) for of in (victim, neighbor)]
        await shop.settle()
        broken = await owner(shop, log).writer.execute(
            lambda tx: tx.state(aggregate, victim_of(log, bad, victim).id)
        )

        def breaks(state: Any, command: Any) -> Any:
            if state == broken.result:
                raise LookupError("a defect")
            return decide(state, command)

        object.__setattr__(aggregate, "decide", breaks)
        try:
            shop.customer_svc.works.set()
            with pytest.raises(StreamUnreadable, match=r"decide fails on .* a defect"):
                await call(shop, log, bad, victim)
            await shop.settle()
            await shop.let_pass(DEADLINE + timedelta(seconds=1))
            await shop.settle()
            assert state_of(shop, good) == ORDER_STATE_APPROVED
            assert parked(shop)
        finally:
            object.__setattr__(aggregate, "decide", decide)
        await comes_right(shop, bad, victim)


@pytest.mark.parametrize("state", [b"", b"{", b"\xff garbage", b"{}"])
@pytest.mark.parametrize(("log", "mode"), CASES, ids=str)
async def test_a_bad_snapshot_is_noticed_by_nobody(log: str, mode: Mode, state: bytes) -> None:
    async with MemoryShop() as shop:
        customer = await a_customer(shop)
        shop.customer_svc.works.clear()
        order_id = await order(shop, customer, mode)
        await shop.settle()
        stream, node = victim_of(log, order_id, customer), owner(shop, log)
        version = len(shop.logs[log].streams[stream])
        schema = StateCodec(STREAMS[log]).schema
        shop.logs[log].snapshots[stream] = Snapshot(stream, version, 1, schema, state)
        node.writer._states.known.clear()
        shop.customer_svc.works.set()
        await shop.settle()
        assert state_of(shop, order_id) == ORDER_STATE_APPROVED
        assert not parked(shop)
        assert node.writer._snapshots.ignored == 1
        await until(lambda: shop.logs[log].snapshots[stream].state != state)
