"""twinlog.v1.InspectionService as operators call it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, NoReturn, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import StringValue

import twinlog
from tests.controls import new_id
from tests.inspection.conftest import customer, inspection, order
from tests.kernel.batches import METADATA, append, batch, counter, grow, new_event
from tests.kernel.edge import rich
from tests.memory_service import memory_service
from tests.memory_shop import MemoryShop
from tests.virtual_time import in_virtual_time
from tests.waiting import until
from twinlog import Aggregate, Recorded, Schema, StreamId
from twinlog.dev import free_port
from twinlog.log import scan
from twinlog.log.history import LogHistory
from twinlog.model.messages import as_object
from twinlog.rpc import inspection_service, serve
from twinlog.rpc.context import Context
from twinlog.rpc.history_service import HistoryService
from twinlog.rpc.inspection import Inspected, Patience
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.peers import Peers
from twinlog.rpc.registrations import registrations
from twinlog.service.environment import Endpoint
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.history_service_pb2 import ReadStreamRequest
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub


async def read(stub: Any, **request: Any) -> tuple[list[pb.LoggedEvent], pb.ReadLogResponse]:
    """The events of a call, and the last response, which says how far it came."""
    responses = [response async for response in stub.ReadLog(pb.ReadLogRequest(**request))]
    assert [response.HasField("event") for response in responses] == [*([True] * (len(responses) - 1)), False]
    return [response.event for response in responses[:-1]], responses[-1]


async def test_a_process_describes_itself(shop: MemoryShop) -> None:
    await order(shop, await customer(shop))
    await shop.settle()
    async with inspection(shop.projector) as stub:
        described = await stub.Describe(pb.DescribeRequest())
    assert (described.service, described.twinlog_version) == ("projector", twinlog.__version__)
    assert [(log.log, log.own) for log in described.logs] == [
        ("projector", True),
        ("customers", False),
        ("orders", False),
        ("sagas", False),
    ]
    assert described.logs[1].last > 0
    assert all(log.stream_exists and not log.holes and not log.problem for log in described.logs)
    assert [(view.view, len(view.consumers)) for view in described.views] == [
        ("customers", 1),
        ("orders", 1),
        ("timeline", 3),
    ]


async def test_a_caller_that_is_gone_before_anything_was_asked_leaves_nothing(shop: MemoryShop) -> None:
    # A coroutine that nobody awaits is a warning, which fails the test.
    asked = asyncio.create_task(shop.projector.inspected.logs(Patience.of(60)))
    await asyncio.sleep(0)  # what it asks has tasks by now, which have not begun
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_aggregates_and_sagas_are_told_apart(shop: MemoryShop) -> None:
    async with inspection(shop.saga_orchestrator) as stub:
        described = await stub.Describe(pb.DescribeRequest())
        assert described.aggregates == described.sagas == ["credit_saga"]
    async with inspection(shop.order_svc) as stub:
        described = await stub.Describe(pb.DescribeRequest())
        assert "order" in described.aggregates
        assert not described.sagas


async def test_a_stream_that_is_gone_is_described_so(
    shop: MemoryShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = shop.twin("orders")
    monkeypatch.setattr(twin, "create", _hang)  # or its relay has it again at its next look
    await twin.delete()
    async with inspection(shop.projector) as stub:
        described = await stub.Describe(pb.DescribeRequest())
        [orders] = [log for log in described.logs if log.log == "orders"]
        assert not orders.stream_exists
        [consumer] = (
            await stub.ListConsumers(pb.ListConsumersRequest(consumer="projector.orders"))
        ).consumers
        assert not consumer.lag_known


async def test_a_consumer_that_is_held_up_is_behind_by_what_it_wants(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    await shop.settle()
    shop.customer_svc.works.clear()
    for _ in range(3):
        await order(shop, customer_id)
    await until(lambda: shop.logs["orders"].events[-1:] != [] and _copied(shop, "orders"))
    async with inspection(shop.customer_svc) as stub:
        consumers = (await stub.ListConsumers(pb.ListConsumersRequest())).consumers
        lags = {each.consumer: each.lag for each in consumers}
        assert lags == {"customer_svc.orders": 3, "customer_svc.sagas": 0}
        assert all(each.lag_known and each.here and not each.problem for each in consumers)
        shop.customer_svc.works.set()
        await shop.settle()
        [orders] = (
            await stub.ListConsumers(pb.ListConsumersRequest(consumer="customer_svc.orders"))
        ).consumers
        assert (orders.lag, orders.log) == (0, "orders")


def _copied(shop: MemoryShop, log: str) -> bool:
    twin: Any = shop.twin(log)
    return bool(twin.last == len(shop.logs[log].events))


async def test_an_unknown_consumer_is_refused_by_name(shop: MemoryShop) -> None:
    async with inspection(shop.customer_svc) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListConsumers(pb.ListConsumersRequest(consumer="nobody"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "customer_svc.orders" in str(rich(refused.value).details)


async def test_the_log_is_read_decoded_and_in_order(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    order_id = await order(shop, customer_id, 7)
    await shop.settle()
    async with inspection(shop.order_svc) as stub:
        events, last = await read(stub)
    assert [event.position for event in events] == [*range(1, len(events) + 1)]
    assert (last.position, last.complete) == (len(events), True)
    first = events[0]
    assert (first.address, first.stream, first.version) == ("orders/1", f"order/{order_id}", 1)
    assert first.type == "shop.orders.v1.OrderCreated"
    payload = MessageToDict(first.payload)
    assert (payload["customer_id"], payload["total"]["units"]) == (customer_id, "7")


@pytest.mark.parametrize("by", ["stream", "kind", "type", "full type", "correlation", "routing key"])
async def test_filters_choose(shop: MemoryShop, by: str) -> None:
    customer_id = await customer(shop)
    orders = [await order(shop, customer_id) for _ in range(3)]
    await shop.settle()
    events = shop.logs["orders"].events
    one = next(event for event in events if event.stream.id == orders[1])
    cases: dict[str, tuple[dict[str, Any], Callable[[Recorded], bool]]] = {
        "stream": ({"stream": str(one.stream)}, lambda e: e.stream == one.stream),
        "kind": ({"stream": "order"}, lambda e: e.stream.type == "order"),
        "type": ({"types": ["OrderApproved"]}, lambda e: e.type.endswith(".OrderApproved")),
        "full type": ({"types": [one.type]}, lambda e: e.type == one.type),
        "correlation": (
            {"correlation_id": one.metadata.correlation_id},
            lambda e: e.metadata.correlation_id == one.metadata.correlation_id,
        ),
        "routing key": ({"routing_key": one.routing_key}, lambda e: e.routing_key == one.routing_key),
    }
    request, wanted = cases[by]
    expected = [event.position for event in events if wanted(event)]
    assert expected
    async with inspection(shop.order_svc) as stub:
        found, last = await read(stub, **request)
        assert ([event.position for event in found], last.complete) == (expected, True)
        found, last = await read(stub, **request, newest=2)
        assert ([event.position for event in found], last.complete) == (expected[-2:], True)


async def test_a_range_ends_at_its_limit_and_goes_on_from_there(
    shop: MemoryShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "PAGE", 2)
    monkeypatch.setattr(scan, "MOST_LOOKED_AT", 4)
    customer_id = await customer(shop)
    for _ in range(6):
        await order(shop, customer_id)
    await shop.settle()
    wanted = [event.position for event in shop.logs["orders"].events if event.type.endswith("Approved")]
    async with inspection(shop.order_svc) as stub:
        found, position, calls, complete = list[int](), 0, 0, False
        while not complete:
            events, last = await read(stub, after=position, types=["OrderApproved"], limit=2)
            found += [event.position for event in events]
            assert len(events) <= 2
            position, complete, calls = last.position, last.complete, calls + 1
        assert found == wanted
        assert calls > 2


async def test_times_are_found(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    await order(shop, customer_id)
    await shop.settle()
    early = len(shop.logs["orders"].events)
    shop.clock.advance(timedelta(hours=1))
    noon = shop.clock.now()
    await order(shop, customer_id)
    await shop.settle()
    async with inspection(shop.order_svc) as stub:
        events, _ = await read(stub, since=noon)
        assert events[0].position == early + 1
        events, _ = await read(stub, until=noon)
        assert events[-1].position == early


async def test_what_comes_is_followed(shop: MemoryShop) -> None:
    customer_id = await customer(shop)
    await order(shop, customer_id)
    await shop.settle()
    async with inspection(shop.order_svc) as stub:
        call = stub.ReadLog(pb.ReadLogRequest(newest=1, types=["OrderCreated"], follow=True))
        assert (await call.read()).event.position == 1
        order_id = await order(shop, customer_id)
        async with asyncio.timeout(60):
            assert (await call.read()).event.stream == f"order/{order_id}"
        call.cancel()


@dataclass(frozen=True)
class Lines:
    of: tuple[str, ...] = ()


@asynccontextmanager
async def large_events(cause: Callable[[int], str]) -> AsyncIterator[Any]:
    """The inspection of a log whose 60 events do not fit into a message together; ``cause`` of each, by version."""
    log = MemoryLog("log")
    for version in range(1, 61):
        event = new_event(counter(), version, StringValue(value="x" * 100_000))
        event = event._replace(metadata=METADATA._replace(causation_id=cause(version)))
        await append(log, replace(batch((counter(), version - 1, 1)), events=[event]))
    inspected = Inspected("service", log, MemoryTwin("log"), Schema(), datetime.now(UTC))
    async with (
        serve([*registrations(InspectionService(inspected))], domain="shop") as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield InspectionServiceStub(channel)


async def test_a_stream_of_large_events_shows_as_many_as_fit() -> None:
    async with large_events(lambda version: "rpc/Add") as stub:
        shown = await stub.GetStream(pb.GetStreamRequest(stream="counter/a"))
    assert [event.version for event in shown.events] == [*range(37, 61)]
    assert shown.version == 60


class Texts(NamedTuple):
    """What a test writes into one stream of texts, and how an answer is asked for."""

    lines: int
    line_bytes: int
    since: int = 0


@pytest.mark.parametrize("texts", [Texts(1, 710_000), Texts(200, 400), Texts(900, 2_000, since=1)])
@pytest.mark.parametrize("changes_only", [False, True])
async def test_whatever_a_stream_comes_to_fits_into_a_message(texts: Texts, changes_only: bool) -> None:
    def evolve(_state: Lines, event: Any) -> Lines:
        return Lines(tuple(event.value[at :: texts.lines] for at in range(texts.lines)))

    aggregate: Aggregate[Lines, Any] = Aggregate("text", Lines(), lambda *_: [], evolve, lambda _: "key")
    log, stream = MemoryLog("log"), StreamId("text", "a")
    for version in range(1, 101 if not texts.since else 3):
        message = StringValue(value=chr(97 + version % 26) * texts.lines * texts.line_bytes)
        event = new_event(stream, version, message)._replace(metadata=METADATA)
        await append(log, replace(batch((stream, version - 1, 1)), events=[event]))
    inspected = Inspected("service", log, MemoryTwin("log"), Schema(), datetime.now(UTC), [aggregate])
    request = pb.GetStreamRequest(stream="text/a", with_states=True, changes_only=changes_only)
    if texts.since:
        request.since.version = texts.since
    async with (
        serve([*registrations(InspectionService(inspected))], domain="shop") as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        told = await InspectionServiceStub(channel).GetStream(request)
    assert told.events and len(told.states) == len(told.events)
    newest = told.states[-1]
    assert len(newest.changes) + newest.more_changes == texts.lines
    assert len(told.changes) + told.more_changes == bool(texts.since) * texts.lines


async def test_large_causes_and_effects_are_told_as_far_as_they_fit() -> None:
    async with large_events(lambda version: f"log/{version - 1}") as stub:
        traced = await stub.TraceEvent(pb.TraceEventRequest(address="log/60"))
        assert [event.position for event in traced.causes] == [*range(59, 55, -1)]
        assert traced.beyond == "log/55"
    async with large_events(lambda version: "log/1") as stub:
        traced = await stub.TraceEvent(pb.TraceEventRequest(address="log/1"))
        assert 0 < len(traced.effects) < 60


async def test_a_history_is_told_in_messages_that_clients_take_however_large_its_metadata() -> None:
    log = MemoryLog("log")
    events = [
        new_event(counter(), version)._replace(metadata=METADATA._replace(extra={"why": "x" * 20_000}))
        for version in range(1, 301)
    ]
    await append(log, replace(batch((counter(), 0, 300)), events=events))
    service = HistoryService(log, Peers(LogHistory(log)))
    request = ReadStreamRequest(stream="counter/a")
    told = [each async for each in service.ReadStream(request, cast("Context", None))]
    assert sum(len(each.events) for each in told) == 300
    assert max(each.ByteSize() for each in told) < 2_000_000


@in_virtual_time
async def test_those_who_follow_a_log_share_looks_at_it() -> None:
    """Hundreds that each look for themselves take the connections that commands need."""

    class Counted(MemoryLog):
        looks = 0

        async def head(self) -> int:
            self.looks += 1
            await asyncio.sleep(0.01)
            return await super().head()

    log = Counted("log")
    inspected = Inspected("service", log, MemoryTwin("log"), Schema(), datetime.now(UTC))
    service, seen = InspectionService(inspected), Counter[int]()

    async def follow(number: int) -> None:
        async for response in service.ReadLog(pb.ReadLogRequest(follow=True), cast("Context", None)):
            seen[number] = response.position

    following = [asyncio.create_task(follow(number)) for number in range(100)]
    await asyncio.sleep(10)
    assert log.looks < 100 + 10 / 0.1 + 10
    await grow(log, 3)
    await until(lambda: [*seen.values()] == [3] * 100)
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)


async def test_a_crowd_that_looks_at_a_log_leaves_connections_to_commands() -> None:
    """Each look takes a connection of the few that a process has."""

    class Slow(MemoryLog):
        looks = most = 0

        async def head(self) -> int:
            self.looks += 1
            self.most = max(self.most, self.looks)
            await asyncio.sleep(0)
            self.looks -= 1
            return await super().head()

    log, twin, stop = Slow("log"), MemoryTwin("log"), asyncio.Event()
    await twin.create(1)
    await grow(log, 3)
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = memory_service("service", log, lambda _of: twin, endpoint=endpoint, until_stopped=stop.wait)
    async with service.running(), grpc.aio.insecure_channel(endpoint.address) as channel:
        serving = asyncio.create_task(service.serve())
        await asyncio.wait_for(channel.channel_ready(), 60)
        looked: list[pb.ReadLogResponse] = []

        async def look() -> None:
            looked.extend(
                [each async for each in InspectionServiceStub(channel).ReadLog(pb.ReadLogRequest())]
            )

        log.most = 0
        await asyncio.gather(*(look() for _ in range(100)))
        assert len(looked) == 100 * 4
        assert log.most < 10  # two who look, and the service itself
        stop.set()
        await serving


async def test_a_stream_shows_its_events_and_what_they_come_to(shop: MemoryShop) -> None:
    order_id = await order(shop, await customer(shop), 7)
    await shop.settle()
    async with inspection(shop.order_svc) as stub:
        now = await stub.GetStream(pb.GetStreamRequest(stream=f"order/{order_id}"))
        then = await stub.GetStream(pb.GetStreamRequest(stream=f"order/{order_id}", upto_version=1))
        newest = await stub.GetStream(pb.GetStreamRequest(stream=f"order/{order_id}", newest=1))
    assert [event.version for event in now.events] == [*range(1, now.version + 1)]
    assert [event.version for event in newest.events] == [now.version]
    assert then.version == 1
    assert MessageToDict(then.state) != MessageToDict(now.state) == MessageToDict(newest.state)


async def test_a_stream_is_shown_as_of_a_position_and_a_time(shop: MemoryShop) -> None:
    order_id = await order(shop, await customer(shop), 7)
    await shop.settle()
    stream = f"order/{order_id}"
    async with inspection(shop.order_svc) as stub:
        now = await stub.GetStream(pb.GetStreamRequest(stream=stream))
        for upto, event in enumerate(now.events, 1):
            then = pb.GetStreamRequest(stream=stream, upto_position=event.position)
            assert (await stub.GetStream(then)).version == upto
            before = pb.GetStreamRequest(stream=stream, upto_position=event.position - 1)
            if upto > 1:
                assert (await stub.GetStream(before)).version == upto - 1
        last = max(event.recorded_at.ToNanoseconds() for event in now.events)
        later = pb.GetStreamRequest(stream=stream, upto_time=now.events[-1].recorded_at)
        later.upto_time.FromNanoseconds(last)
        assert (await stub.GetStream(later)).state == now.state
        later.upto_time.FromNanoseconds(now.events[0].recorded_at.ToNanoseconds() - 1000)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStream(later)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert "had not begun by then: its first event is orders/" in (refused.value.details() or "")
        later.upto_position = 1
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStream(later)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("time", [Timestamp(seconds=10**15), Timestamp(nanos=-1)], ids=["far", "none"])
async def test_a_time_that_is_none_is_refused(shop: MemoryShop, time: Timestamp) -> None:
    async with inspection(shop.order_svc) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStream(pb.GetStreamRequest(stream="order/a", upto_time=time))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "upto_time: must be a time of the years 1 to 9999" in (refused.value.details() or "")


async def test_a_stream_of_an_aggregate_that_is_not_declared_has_events_and_no_state(
    shop: MemoryShop,
) -> None:
    order_id = await order(shop, await customer(shop))
    shop.order_svc.inspected.aggregates = []
    async with inspection(shop.order_svc) as stub:
        found = await stub.GetStream(pb.GetStreamRequest(stream=f"order/{order_id}"))
    assert found.events
    assert not found.HasField("state")
    assert "order" in found.without_state


@pytest.mark.parametrize("kept_as", [str.lower, str.upper])
async def test_an_id_in_capitals_is_the_one_that_the_log_has(kept_as: Callable[[str], str]) -> None:
    """Edges keep ids in lower case; a service that checks none may have kept others."""
    log, context, id = MemoryLog("log"), cast("Context", None), new_id()
    kept, asked = StreamId("counter", kept_as(id)), f"counter/{id.upper()}"
    await append(log, replace(batch((kept, 0, 1)), events=[new_event(kept, 1)]))
    service = InspectionService(Inspected("service", log, MemoryTwin("log"), Schema(), datetime.now(UTC)))
    history = HistoryService(log, Peers(LogHistory(log)))
    found = await service.GetStream(pb.GetStreamRequest(stream=asked), context)
    assert (found.stream, found.version) == (str(kept), 1)
    looked = [each async for each in service.ReadLog(pb.ReadLogRequest(stream=asked), context)]
    assert [each.event.stream for each in looked] == [str(kept), ""]
    told = [each async for each in history.ReadStream(ReadStreamRequest(stream=asked), context)]
    assert sum(len(each.events) for each in told) == 1


@pytest.mark.parametrize(
    ("stream", "code"),
    [("order/nobody", grpc.StatusCode.NOT_FOUND), ("order", grpc.StatusCode.INVALID_ARGUMENT)],
)
async def test_a_stream_that_is_not_there_is_refused(
    shop: MemoryShop, stream: str, code: grpc.StatusCode
) -> None:
    async with inspection(shop.order_svc) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetStream(pb.GetStreamRequest(stream=stream))
    assert refused.value.code() is code


@pytest.mark.parametrize(
    "request_",
    [
        {"after": -1},
        {"newest": inspection_service._MOST_EVENTS + 1},
        {"limit": -1},
        {"stream": "order/"},
        {"since": Timestamp(seconds=10**15)},
        {"until": Timestamp(nanos=-1)},
    ],
)
async def test_what_makes_no_sense_is_refused(shop: MemoryShop, request_: dict[str, Any]) -> None:
    async with inspection(shop.order_svc) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await read(stub, **request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_texts_that_no_log_keeps_are_refused_by_field_whatever_asks(shop: MemoryShop) -> None:
    """A NUL character would fail in the store, or in the rule before it, as a defect with a traceback."""
    nul = "has a NUL character; leave it out"
    async with inspection(shop.order_svc) as stub:
        for call, field in (
            (stub.GetStream(pb.GetStreamRequest(stream="order/a\0")), "stream"),
            (stub.ListConsumers(pb.ListConsumersRequest(consumer="\0")), "consumer"),
            (stub.TraceEvent(pb.TraceEventRequest(address="orders/1\0")), "address"),
            (read(stub, types=["OrderCreated", "x\0y"]), "types"),
            (read(stub, correlation_id="\0"), "correlation_id"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, field
            assert f"{field}: {nul}" in (refused.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError) as unknown:  # zeros elsewhere are none
            await stub.GetStream(pb.GetStreamRequest(stream="order/a", upto_time=Timestamp(nanos=256)))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_it_is_told_whether_the_newest_were_looked_for_far_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan, "MOST_LOOKED_AT", 10)
    log = MemoryLog("counters")
    await grow(log, 20)
    for count, seen, enough in ((9, 9, True), (10, 10, True), (11, 10, False)):
        found, known = await scan.newest(log, scan.Filter(), count, 0, 20)
        assert ([event.position for event in found], known) == ([*range(21 - seen, 21)], enough)


def test_a_message_is_shown_in_the_order_of_its_names_and_whole_numbers_as_such() -> None:
    struct = Struct()
    struct.update({"b": [1, 2.5, ["x"]], "a": 3})
    assert str(as_object(struct)) == "{'a': 3, 'b': [1, 2.5, ['x']]}"


async def test_servers_that_hang_are_named_in_time(shop: MemoryShop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks hears it from the service, instead of nothing; what the other server says is told."""
    monkeypatch.setattr(inspection_service, "_MOST_SECONDS", 0.1)
    await order(shop, await customer(shop))
    await shop.settle()
    node = shop.customer_svc
    twins = [node.inspected.twin, *(each.twin for each in node.inspected.followed)]
    async with inspection(node) as stub:
        with monkeypatch.context() as hanging:
            for twin in twins:
                for name in ("state", "ahead"):
                    hanging.setattr(twin, name, _hang, raising=False)
            described = await stub.Describe(pb.DescribeRequest())
            told = (await stub.ListConsumers(pb.ListConsumersRequest())).consumers
        assert described.logs[0].head == await node.log.head() > 0
        assert {each.problem for each in described.logs} == {"NATS does not answer"}
        assert max(each.position for each in told) > 0
        assert not any(each.lag_known for each in told)
        monkeypatch.setattr(node.inspected.log, "head", _hang)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Describe(pb.DescribeRequest())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "the database does not answer"


async def _hang(*_arguments: object, **_named: object) -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError
