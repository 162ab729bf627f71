"""The host: limits, deadlines, streams, health, reflection and the graceful stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from shop.queries.v1.order_query_service_pb2 import (
    GetOrderRequest,
    GetOrderResponse,
    Order,
    WatchOrderRequest,
    WatchOrderResponse,
)
from shop.queries.v1.order_query_service_pb2_grpc import (
    OrderQueryServiceStub,
    add_OrderQueryServiceServicer_to_server,
)
from tests.kernel.edge import NAME, PATIENCE, Client, Edge, detail, echo, forever, rich, serving
from tests.virtual_time import simulated
from tests.waiting import until
from twinlog import ConfigurationError
from twinlog.model.errors import Overloaded
from twinlog.rpc import Context, Limits, gates, handlers, host, serve, time_left
from twinlog.rpc.health import LIVENESS, PROBLEM_KEY, Health
from twinlog.rpc.registrations import Registration
from twinlog.rpc.streams import StreamLimits, Streams, TooManyStreams, WatchAgain
from twinlog.v1.inspection_pb2_grpc import InspectionServiceServicer, add_InspectionServiceServicer_to_server

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
INSPECTION = "twinlog.v1.InspectionService"


class Gate:
    """A method that waits to be let on, and a stream that never ends by itself."""

    def __init__(self) -> None:
        self.entered, self.open, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def get(self, request: GetOrderRequest, context: Context) -> GetOrderResponse:
        self.entered.set()
        try:
            await self.open.wait()
        finally:
            self.left.set()
        return await echo(request, context)

    async def watch(self, request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
        try:
            yield WatchOrderResponse(order=Order(order_id="first"))
            self.entered.set()
            await forever()
        finally:
            self.left.set()

    @property
    def edge(self) -> Edge:
        return Edge(self.get, self.watch)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def patient_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopping server takes only a long silence for one: a call on its way may be held up on a busy machine."""
    monkeypatch.setattr(handlers, "_QUIET_SECONDS", 1.0)
    monkeypatch.setattr(host, "_GOODBYE_SECONDS", 0.3)


async def test_answers_calls_and_streams() -> None:
    async with serving(Edge()) as client:
        assert await client.get("hello") == "hello"
        stream = client.stub.WatchOrder(WatchOrderRequest())
        assert [response.order.order_id async for response in stream] == ["0", "1", "2"]


class TestLimits:
    async def test_a_request_of_a_mebibyte_is_refused(self) -> None:
        async with serving(Edge()) as client:
            assert (await client.refusal("x" * 2**20)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await client.get("x" * 200_000)

    async def test_more_calls_than_allowed_are_refused(self, gate: Gate) -> None:
        async with serving(gate.edge, limits=Limits(concurrent_calls=1)) as client:
            first = asyncio.create_task(client.get())
            await gate.entered.wait()
            refused = await client.refusal()
            assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert detail(rich(refused), ErrorInfo).reason == "TOO_MANY_CALLS"
            assert detail(rich(refused), RetryInfo).retry_delay.seconds == 1
            gate.open.set()
            assert await first == "x"
            assert await client.get() == "x"

    async def test_operators_are_answered_beside_as_many_calls_as_are_allowed(self, gate: Gate) -> None:
        services: list[Registration] = [
            (gate.edge, add_OrderQueryServiceServicer_to_server, NAME),
            (cast(Any, InspectionServiceServicer)(), add_InspectionServiceServicer_to_server, INSPECTION),
        ]
        async with (
            serve(services, domain="shop", limits=Limits(concurrent_calls=1)) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            stub: Any = OrderQueryServiceStub(channel)
            first = asyncio.create_task(_answer(stub.GetOrder(GetOrderRequest())))
            await gate.entered.wait()
            assert await _answer(stub.GetOrder(GetOrderRequest())) == grpc.StatusCode.RESOURCE_EXHAUSTED
            described = channel.unary_unary(f"/{INSPECTION}/Describe")(b"")
            assert await _answer(described) == grpc.StatusCode.UNIMPLEMENTED, "as the servicer itself says"
            gate.open.set()
            assert await first == grpc.StatusCode.OK

    async def test_watchers_take_nothing_from_calls_nor_from_health(self, gate: Gate) -> None:
        async with serving(gate.edge, limits=Limits(concurrent_calls=1)) as client:
            watching = [await _watching(client) for _ in range(20)]
            first = asyncio.create_task(client.get())
            assert await _health(client, "") == SERVING
            gate.open.set()
            assert await first == "x"
            assert len(watching) == 20

    @pytest.mark.parametrize(
        ("limits", "where"),
        [
            (StreamLimits(per_connection=2), "on this connection"),
            (StreamLimits(most=2), "on this server"),
        ],
    )
    async def test_more_watchers_than_allowed_are_refused(
        self, gate: Gate, limits: StreamLimits, where: str
    ) -> None:
        async with serving(gate.edge, limits=Limits(streams=limits)) as client:
            watching = [await _watching(client) for _ in range(2)]
            refused = await _end_of(client.stub.WatchOrder(WatchOrderRequest()))
            assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert detail(rich(refused), ErrorInfo).reason == "TOO_MANY_STREAMS"
            assert f"2 streams are open {where}" in (refused.details() or "")

            watching.pop().cancel()
            await until(lambda: _is_let_in(client))

    async def test_one_connections_watchers_take_nothing_from_another(self, gate: Gate) -> None:
        limits = Limits(streams=StreamLimits(per_connection=1))
        async with serving(gate.edge, limits=limits) as client, _another(client) as other:
            assert [await _watching(client), await _watching(other)]

    @pytest.mark.parametrize("limits", [StreamLimits(seconds=0.05), StreamLimits(idle_seconds=0.05)])
    async def test_a_watcher_is_told_to_watch_again_now_and_then(
        self, gate: Gate, limits: StreamLimits
    ) -> None:
        async with serving(gate.edge, limits=Limits(streams=limits)) as client:
            ended = await _end_of(client.stub.WatchOrder(WatchOrderRequest()))
            assert ended.code() == grpc.StatusCode.UNAVAILABLE
            assert detail(rich(ended), ErrorInfo).reason == "WATCH_AGAIN"
            assert gate.left.is_set()

    def test_a_stream_with_messages_is_not_idle(self) -> None:
        """In virtual time: what is idle is a matter of time."""

        async def messages() -> AsyncIterator[int]:
            for number in range(10):
                await asyncio.sleep(3)
                yield number
            await forever()

        async def watched() -> None:
            written: list[int] = []

            async def write(message: int) -> None:
                written.append(message)

            task, context = asyncio.current_task(), SimpleNamespace(write=write)
            assert task is not None
            with Streams(StreamLimits(idle_seconds=4)).open(task, "one") as stream:
                with pytest.raises(asyncio.CancelledError):
                    await handlers._write_all(messages(), cast(Context, context), stream)
                assert isinstance(stream.ended_by, WatchAgain)
            assert written == [*range(10)]
            assert asyncio.get_running_loop().time() == pytest.approx(10 * 3 + 4)

        simulated(watched())

    @pytest.mark.parametrize("gives_way", [False, True])
    def test_a_stream_whose_client_does_not_read_makes_room_only_where_none_is_refused(
        self, gives_way: bool
    ) -> None:
        """It goes on for as long as the client does not read: otherwise there would be any number of them."""
        limits = StreamLimits(most=1, idle_seconds=4, oldest_gives_way=gives_way)

        async def watched() -> None:
            streams, reads = Streams(limits), asyncio.Event()

            async def messages() -> AsyncIterator[int]:
                yield 1

            async def write(_message: int) -> None:
                await reads.wait()

            async def watch() -> None:
                task = asyncio.current_task()
                assert task is not None
                with streams.open(task, "one") as stream:
                    await handlers._write_all(messages(), cast(Context, SimpleNamespace(write=write)), stream)

            first = asyncio.create_task(watch())
            await asyncio.sleep(10)
            second = asyncio.create_task(watch())
            await asyncio.sleep(0.1)
            assert not first.done() and second.done() is not gives_way
            reads.set()
            ends = await asyncio.gather(first, second, return_exceptions=True)
            assert [type(end) for end in ends] == [WatchAgain, type(None) if gives_way else TooManyStreams]
            assert not len(streams)

        simulated(watched())

    async def test_a_full_connection_takes_nothing_from_another(self, gate: Gate) -> None:
        async with serving(gate.edge, limits=Limits(connection_calls=2)) as client:
            calls = [asyncio.create_task(client.get(str(number))) for number in range(5)]
            await gate.entered.wait()
            async with _another(client) as other:
                assert await _health(other, "") == SERVING
            gate.open.set()
            answers = await asyncio.gather(*calls, return_exceptions=True)
            # gRPC holds back what it knows to be too much, and is refused what it sent before: safe to try again.
            assert len([answer for answer in answers if isinstance(answer, str)]) >= 2
            codes = {answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)}
            assert codes <= {grpc.StatusCode.UNAVAILABLE}

    async def test_a_connection_with_more_to_ask_than_it_may_at_once_is_answered(self) -> None:
        async with serving(Edge(), limits=Limits(connection_calls=8)) as client:
            await client.get()  # the client knows the limit from now on
            for _ in range(5):
                ids = [str(number) for number in range(200)]
                assert await asyncio.gather(*map(client.get, ids)) == ids


class TestOverload:
    """A method that has too much to do."""

    async def test_refuses_without_being_asked_for_a_moment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gates, "_SHUT_SECONDS", PATIENCE)
        asked: list[str] = []

        async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
            asked.append(request.order_id)
            raise Overloaded(waiting=7)

        async with serving(Edge(get)) as client:
            refusals = [await client.refusal()]
            refusals += await asyncio.gather(*(client.refusal() for _ in range(50)))
            assert len(asked) == 1
            for refused in refusals:
                assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert detail(rich(refused), ErrorInfo).reason == "OVERLOADED"
                assert detail(rich(refused), RetryInfo).retry_delay.seconds == 1
                assert refused.details() == str(Overloaded(waiting=7))
            stream = client.stub.WatchOrder(WatchOrderRequest())
            assert [response.order.order_id async for response in stream] == ["0", "1", "2"]

    async def test_a_refusal_takes_a_moment_and_can_be_given_up(self) -> None:
        async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
            raise Overloaded(waiting=7)

        async with serving(Edge(get)) as client:
            await client.refusal()
            refused = await client.refusal(timeout=0.001)
            assert refused.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert (await client.refusal()).code() == grpc.StatusCode.RESOURCE_EXHAUSTED


class TestDeadline:
    async def test_a_deadline_of_a_millisecond_passes_and_harms_nothing(self, gate: Gate) -> None:
        async with serving(gate.edge) as client:
            for _ in range(20):
                refused = await client.refusal(timeout=0.001)
                assert refused.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            gate.open.set()
            assert await client.get() == "x"

    async def test_a_method_is_cancelled_at_the_deadline(self, gate: Gate) -> None:
        async with serving(gate.edge) as client:
            timeout = 0.1
            while not gate.entered.is_set():  # a deadline may pass before the method begins
                timeout *= 2
                refused = await client.refusal(timeout=timeout)
                assert refused.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await gate.left.wait()

    async def test_a_method_knows_how_long_it_may_wait(self) -> None:
        async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
            return GetOrderResponse(order=Order(order_id=str(time_left(context, at_most=5_000))))

        async with serving(Edge(get)) as client:
            # On the wire a deadline has three digits, rounded up: what comes may be a hundredth more.
            assert 800 < float(await client.get(timeout=1_000)) <= 909
            assert float((await client.stub.GetOrder(GetOrderRequest())).order.order_id) == 5_000


class TestStreams:
    async def test_a_watcher_that_goes_lets_the_method_go(self, gate: Gate) -> None:
        async with serving(gate.edge) as client:
            stream = client.stub.WatchOrder(WatchOrderRequest())
            await gate.entered.wait()
            stream.cancel()
            await gate.left.wait()

    async def test_a_watcher_is_told_when_the_server_stops(self, gate: Gate) -> None:
        async with serving(gate.edge) as client:
            responses = aiter(client.stub.WatchOrder(WatchOrderRequest()))
            await anext(responses)
            await gate.entered.wait()
            await client.stop()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(responses)

        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert detail(rich(refused.value), ErrorInfo).reason == "STOPPING"
        assert gate.left.is_set()

    async def test_who_watches_again_and_again_is_told_unavailable_and_never_cancelled(
        self, patient_stop: None
    ) -> None:
        codes: set[grpc.StatusCode] = set()

        async def keep_watching() -> None:
            while True:
                try:
                    async for _ in client.stub.WatchOrder(WatchOrderRequest()):
                        pass
                    codes.add(grpc.StatusCode.OK)
                except grpc.aio.AioRpcError as error:
                    codes.add(error.code())
                    return

        async def watch(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
            yield WatchOrderResponse(order=Order(order_id="one"))
            if client_stops.is_set():
                await forever()

        client_stops = asyncio.Event()
        async with serving(Edge(watch=watch), limits=Limits(grace=PATIENCE)) as client:
            watchers = [asyncio.create_task(keep_watching()) for _ in range(50)]
            await until(lambda: bool(codes))
            client_stops.set()
            await client.stop()
            await asyncio.gather(*watchers)
        assert codes == {grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE}

    async def test_a_watcher_that_still_has_to_read_is_told_when_the_server_stops(self) -> None:
        async def watch(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
            writes.set()
            yield large
            await forever()

        writes = asyncio.Event()
        # More than is sent to a client that does not read: the server is writing when it is to stop.
        large = WatchOrderResponse(order=Order(order_id="x" * 2**21))
        async with serving(Edge(watch=watch)) as client:
            responses = aiter(client.stub.WatchOrder(WatchOrderRequest()))
            await writes.wait()
            stop = asyncio.ensure_future(client.stop())
            assert await anext(responses) == large
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await anext(responses)
            await stop

        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert detail(rich(refused.value), ErrorInfo).reason == "STOPPING"

    async def test_a_watcher_that_never_reads_does_not_outlast_the_grace(self) -> None:
        async def watch(request: WatchOrderRequest, context: Context) -> AsyncIterator[WatchOrderResponse]:
            writes.set()
            try:
                yield WatchOrderResponse(order=Order(order_id="x" * 2**21))
            finally:
                left.set()

        writes, left = asyncio.Event(), asyncio.Event()
        async with serving(Edge(watch=watch), limits=Limits(grace=0.05)) as client:
            unread = client.stub.WatchOrder(WatchOrderRequest())
            await writes.wait()
            async with asyncio.timeout(PATIENCE):
                await client.stop()
            assert left.is_set()
            unread.cancel()


class TestStop:
    async def test_a_call_in_flight_gets_its_answer(self, gate: Gate) -> None:
        async with serving(gate.edge) as client:
            call = asyncio.create_task(client.get())
            await gate.entered.wait()
            stop = asyncio.ensure_future(client.stop())
            await _refuses_new_calls(client)
            gate.open.set()

            assert await call == "x"
            await stop

    async def test_busy_clients_are_told_unavailable_and_never_cancelled(self, patient_stop: None) -> None:
        codes: set[grpc.StatusCode] = set()

        async def keep_calling() -> None:
            while grpc.StatusCode.UNAVAILABLE not in codes:
                try:
                    await client.get()
                    served.set()
                except grpc.aio.AioRpcError as error:
                    codes.add(error.code())

        served = asyncio.Event()
        async with serving(Edge(), limits=Limits(grace=PATIENCE)) as client:
            callers = [asyncio.create_task(keep_calling()) for _ in range(32)]
            await served.wait()
            await client.stop()
            await asyncio.gather(*callers)

        assert codes == {grpc.StatusCode.UNAVAILABLE}

    async def test_a_call_that_outlasts_the_grace_is_cut_off(self, gate: Gate) -> None:
        async with serving(gate.edge, limits=Limits(grace=0.05)) as client:
            call = asyncio.create_task(client.refusal())
            await gate.entered.wait()
            await client.stop()

            assert (await call).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            await gate.left.wait()


class TestAddress:
    async def test_a_taken_port_is_a_configuration_error_that_names_the_setting(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        async with serving(Edge()) as client:
            with pytest.raises(ConfigurationError) as refused:
                async with serve([], address=client.address, domain="shop", setting="ORDERS_ADDRESS"):
                    pass

        assert str(refused.value) == (
            f"ORDERS_ADDRESS: cannot listen on {client.address} (Address already in use); "
            "stop what uses it or set ORDERS_ADDRESS to another host:port"
        )
        assert "E0000" not in capfd.readouterr().err

    async def test_a_port_that_somebody_else_looked_at_is_tried_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        servers = type(grpc.aio.server())
        looks, add = [1, 2], servers.add_insecure_port

        def taken(server: grpc.aio.Server, address: str) -> int:
            if looks:
                looks.pop()
                raise RuntimeError("Failed to bind")
            return int(add(server, address))

        monkeypatch.setattr(servers, "add_insecure_port", taken)
        async with serve([], domain="shop") as server:
            assert not server.address.endswith(":0")
        assert not looks
        looks.extend([1] * 9)
        with pytest.raises(ConfigurationError, match=r"cannot listen on 127.0.0.1:0 \(Failed to bind\)"):
            async with serve([], domain="shop"):
                pass

    async def test_replicas_share_a_port_where_all_of_them_say_so(self) -> None:
        async with serve([], domain="shop", shared=True) as first:
            async with serve([], address=first.address, domain="shop", shared=True) as second:
                assert second.address == first.address
            with pytest.raises(ConfigurationError, match="Address already in use"):
                async with serve([], address=first.address, domain="shop"):
                    pass
        async with serve([], domain="shop") as alone:
            with pytest.raises(ConfigurationError, match="Address already in use"):
                async with serve([], address=alone.address, domain="shop", shared=True):
                    pass

    @pytest.mark.parametrize("address", ["here", "127.0.0.1:x", "127.0.0.1:70000", "192.0.2.1:0", "[::zz]:0"])
    async def test_an_impossible_address_is_a_configuration_error(self, address: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            async with serve([], address=address, domain="shop", setting="ADDRESS"):
                pass
        assert str(refused.value).startswith(f"ADDRESS: cannot listen on {address} (")
        assert "Unknown error" not in str(refused.value)

    async def test_is_on_the_loopback_by_default(self) -> None:
        async with serve([], domain="shop") as server:
            assert server.address.startswith("127.0.0.1:")
            assert not server.address.endswith(":0")


class Part:
    """A part of the process that is in trouble, or not."""

    problem: str | None = None


class TestHealth:
    async def test_serves_overall_and_by_service(self) -> None:
        async with serving(Edge()) as client:
            assert await _health(client, "") == SERVING
            assert await _health(client, NAME) == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await _health(client, "nobody")

        assert refused.value.code() == grpc.StatusCode.NOT_FOUND

    async def test_lists_all_that_can_be_asked_for(self) -> None:
        part = Part()
        part.problem = "it is full"
        async with serving(Edge(), signals={"mail": part}) as client:
            listed = await _health_stub(client.channel).List(health_pb2.HealthListRequest(), timeout=PATIENCE)
        said = {name: each.status for name, each in listed.statuses.items()}
        assert said.pop("mail") == NOT_SERVING
        assert {"", NAME, LIVENESS} <= {*said}
        assert {*said.values()} == {SERVING}

    @pytest.mark.parametrize(
        ("problem", "said"),
        [
            ("mail: überlastet", r"mail: \xfcberlastet"),
            ("one line\r\nand another", "one line and another"),
            ("\N{HANGUL FILLER}\0\7", r"\u3164\x00\x07"),
            ("x" * 20_000, "x" * 1_996 + " ..."),
        ],
    )
    async def test_a_signal_says_its_problem_whatever_words_are_in_it(self, problem: str, said: str) -> None:
        part = Part()
        part.problem = problem
        async with serving(Edge(), signals={"mail": part}) as client:
            call = _health_stub(client.channel).Check(HealthCheckRequest(service="mail"), timeout=PATIENCE)
            assert (await call).status == NOT_SERVING
            assert dict(list(await call.trailing_metadata()))[PROBLEM_KEY] == said

    @pytest.mark.parametrize("name", ["", NAME])
    async def test_not_serving_comes_with_its_reasons_each_once(self, name: str) -> None:
        relay, writer, timers = Part(), Part(), Part()
        async with serving(Edge(), health=[relay, writer, timers]) as client:
            relay.problem = timers.problem = "Log orders has forked; `twinlog repair orders`"
            writer.problem = "JetStream is away"
            call = _health_stub(client.channel).Check(HealthCheckRequest(service=name), timeout=PATIENCE)
            assert (await call).status == NOT_SERVING
            told = dict(list(await call.trailing_metadata()))[PROBLEM_KEY]
            relay.problem = writer.problem = timers.problem = None
            call = _health_stub(client.channel).Check(HealthCheckRequest(service=name), timeout=PATIENCE)
            assert (await call).status == SERVING
            assert PROBLEM_KEY not in dict(list(await call.trailing_metadata()))
        assert told == "Log orders has forked; `twinlog repair orders`; JetStream is away"

    async def test_a_server_that_stops_says_so(self) -> None:
        """While it finishes what it has begun, checks are answered."""
        part, told = Part(), list[Any]()
        health = Health([NAME], [part], {})
        context = cast(Any, SimpleNamespace(set_trailing_metadata=told.append))
        health.stop()
        for name, part.problem in (("", None), (NAME, "NATS is away")):
            assert (await health.Check(HealthCheckRequest(service=name), context)).status == NOT_SERVING
        assert told == [
            ((PROBLEM_KEY, "the server is stopping"),),
            ((PROBLEM_KEY, "NATS is away; the server is stopping"),),
        ]

    async def test_a_part_with_a_problem_makes_it_not_serving_until_it_is_well(self) -> None:
        part = Part()
        with capture_logs() as said:
            async with serving(Edge(), health=[Part(), part]) as client:
                part.problem = "relay: NATS is away"
                assert await _health(client, "") == NOT_SERVING
                assert await _health(client, NAME) == NOT_SERVING
                assert await _health(client, "liveness") == SERVING
                part.problem = None
                assert await _health(client, NAME) == SERVING

        assert [line["problems"] for line in said if line["event"] == "health.changed"] == [
            ["relay: NATS is away"],
            [],
        ]

    async def test_a_watcher_hears_of_changes_and_of_the_stop(self) -> None:
        part = Part()
        async with serving(Edge(), health=[part]) as client:
            stub: Any = health_pb2_grpc.HealthStub(client.channel)
            heard = aiter(stub.Watch(HealthCheckRequest(service=NAME)))
            assert (await anext(heard)).status == SERVING
            part.problem = "away"
            assert (await anext(heard)).status == NOT_SERVING
            part.problem = None
            assert (await anext(heard)).status == SERVING
            await client.stop()
            assert [response.status async for response in heard] == [NOT_SERVING]

    async def test_a_crowd_of_watchers_harms_nobody(self) -> None:
        """On a few connections: health answers, and the oldest of theirs make room, one by one."""
        part = Part()
        async with serving(Edge(), health=[part]) as client, AsyncExitStack() as crowd:
            mine = aiter(_health_stub(client.channel).Watch(HealthCheckRequest(service=NAME)))
            assert (await anext(mine)).status == SERVING
            watching: list[asyncio.Task[grpc.aio.AioRpcError]] = []
            for _ in range(4):
                channel = await crowd.enter_async_context(_channel(client))
                stubs = [_health_stub(channel)] * 64
                watching += [asyncio.create_task(_end_of(stub.Watch(HealthCheckRequest()))) for stub in stubs]
            await until(lambda: sum(watcher.done() for watcher in watching) == 4 * 48)
            assert await _health(client, "") == SERVING
            assert await client.get() == "x"
            part.problem = "away"
            assert (await anext(mine)).status == NOT_SERVING
            for watcher in watching:
                if watcher.done():
                    assert detail(rich(watcher.result()), ErrorInfo).reason == "WATCH_AGAIN"
                watcher.cancel()


class TestReflection:
    async def test_idle_streams_are_limited_and_end_with_the_server(self) -> None:
        async with serving(Edge()) as client:
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(client.channel)
            idle = [stub.ServerReflectionInfo() for _ in range(16)]
            for stream in idle:
                await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
                await stream.read()
            refused = await _end_of(stub.ServerReflectionInfo())
            assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await _health(client, "") == SERVING
            await client.stop()
            assert await idle[0].code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "said", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=["nothing", "half a greeting"]
)
async def test_who_connects_and_does_not_greet_is_cut_off(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_HANDSHAKE_MILLISECONDS", 200)
    async with serve([], domain="shop") as server:
        reader, writer = await asyncio.open_connection(*server.address.rsplit(":", 1))
        writer.write(said)
        async with asyncio.timeout(30):
            while await reader.read(1000):
                pass
        writer.close()


_UNREAD = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex(
    "000006 04 00 00000000 0004 00000000 000000 04 01 00000000"
)
"""A client's greeting that lets no byte of an answer come."""


def _begun(path: str) -> bytes:
    """The beginning of a call: a frame of headers, after which the request would follow."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    fields |= {"te": "trailers", "content-type": "application/grpc"}
    texts = [text.encode() for field in fields.items() for text in field]
    block = b"".join(b"\0" * (1 - at % 2) + bytes([len(text)]) + text for at, text in enumerate(texts))
    return len(block).to_bytes(3, "big") + bytes.fromhex("01 04 00000001") + block


@pytest.mark.parametrize("request_sent", [b"", bytes.fromhex("000005 00 01 00000001 00 00000000")])
@pytest.mark.parametrize("method", ["GetOrder", "WatchOrder"])
async def test_who_sends_no_request_or_reads_no_answer_is_cut_off_with_the_connection(
    method: str, request_sent: bytes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "_CONNECTION_MILLISECONDS", 200)
    monkeypatch.setattr(host, "_LEAVING_MILLISECONDS", 200)
    is_served = bool(request_sent) and method == "WatchOrder"
    async with serving(Edge(echo, gate.watch)) as client, asyncio.timeout(PATIENCE):

        async def cut_off() -> bool:
            reader, writer = await asyncio.open_connection(*client.address.rsplit(":", 1))
            writer.write(_UNREAD + _begun(f"/{NAME}/{method}") + request_sent)
            with suppress(ConnectionError):
                while await reader.read(1000):
                    pass
            writer.close()
            return gate.left.is_set() or not is_served  # a slow machine is cut off before it serves

        async def answered() -> bool:
            with suppress(grpc.aio.AioRpcError):  # so it may be with this connection
                return await client.get() == "x"
            return False

        await until(cut_off)
        await until(answered)


async def test_reflection_lists_the_services() -> None:
    async with serving(Edge()) as client:
        channel: Any = client.channel
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = [response async for response in stub.ServerReflectionInfo(iter([ask]))]

    assert {service.name for service in answer.list_services_response.service} == {
        NAME,
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def _health_stub(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


def _channel(client: Client) -> grpc.aio.Channel:
    """Another connection to the same server."""
    return grpc.aio.insecure_channel(client.address, [("grpc.use_local_subchannel_pool", 1)])


@asynccontextmanager
async def _another(client: Client) -> AsyncIterator[Client]:
    """A client with another connection to the same server."""
    async with _channel(client) as channel:
        yield Client(client.address, OrderQueryServiceStub(channel), channel, client.stop)


async def _watching(client: Client) -> Any:
    """A stream that has begun; it ends when it is canceled, or when nobody holds it any more."""
    stream = client.stub.WatchOrder(WatchOrderRequest())
    await anext(aiter(stream))
    return stream


async def _end_of(stream: Any) -> grpc.aio.AioRpcError:
    """The error that a stream ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        async for _ in stream:
            pass
    return ended.value


async def _is_let_in(client: Client) -> bool:
    try:
        (await _watching(client)).cancel()
    except grpc.aio.AioRpcError:
        return False
    return True


async def _health(client: Client, service: str) -> int:
    response = await _health_stub(client.channel).Check(HealthCheckRequest(service=service), timeout=PATIENCE)
    status: int = response.status
    return status


async def _refuses_new_calls(client: Client) -> None:
    """Returns once the server does not listen any more."""
    host, port = client.address.split(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except ConnectionError:
            return
        writer.close()


async def _answer(call: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = await call.code()
    return code
