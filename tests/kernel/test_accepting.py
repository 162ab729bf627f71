"""How calls are accepted: many at once, and refused without anything being made for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from structlog.testing import capture_logs

from proof.bench.load import Connection, Load
from shop.queries.v1 import order_query_service_pb2_grpc as generated
from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, GetOrderResponse, WatchOrderRequest
from tests.kernel.edge import NAME, PATIENCE, Edge, detail, echo, forever, rich, serving
from tests.waiting import until
from twinlog.model.errors import Overloaded
from twinlog.rpc import Context, Limits, accepting, entrance, gates, serve
from twinlog.rpc.freshness import Freshness
from twinlog.rpc.handlers import Boundary

_LONG_SECONDS = 600.0
_CALLS = 200
_MESSAGE = GetOrderRequest(order_id="x").SerializeToString()
ahead = pytest.mark.skipif(not accepting.is_known(), reason="this grpcio serves calls its own way")


def test_the_names_of_this_grpcio_are_known() -> None:
    version = tuple(map(int, grpc.__version__.split(".")[:2]))
    assert accepting.is_known() or version < (1, 85), (
        f"grpcio {grpc.__version__} has other names than twinlog/rpc/accepting.py: calls are served, but their "
        "refusals are dear and late"
    )


@dataclass
class Busy:
    """A method that has too much to do, or nothing."""

    busy: bool = True
    asked: int = 0
    refused: list[str] = field(default_factory=list)

    async def get(self, request: GetOrderRequest, context: Context) -> GetOrderResponse:
        self.asked += 1
        if self.busy:
            raise Overloaded(waiting=7)
        return await echo(request, context)

    def note(self, method: str, reason: str) -> None:
        """Notes a refusal."""
        assert method == f"{NAME}/GetOrder"
        self.refused.append(reason)

    @asynccontextmanager
    async def called(self) -> AsyncIterator[Connection]:
        """So many calls over one connection, to a server that has refused one."""
        services = [(Edge(self.get), generated.add_OrderQueryServiceServicer_to_server, NAME)]
        limits = Limits(grace=0)
        async with serve(services, domain="shop", on_refused=self.note, limits=limits) as server:
            load = Load(server.address, f"{NAME}/GetOrder", refusals=True)
            async with load.idle(1, _MESSAGE) as first:
                await until(lambda: self.asked == 1)
                async with load.idle(_CALLS, _MESSAGE) as connection:
                    yield connection
                assert not first.failure


@pytest.fixture
def long_shut(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A gate that is shut stays so for the test."""
    monkeypatch.setattr(gates, "_SHUT_SECONDS", _LONG_SECONDS)
    return monkeypatch


class Came(NamedTuple):
    """A call, and where it came to."""

    gate: gates.Gate
    handler: object


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[Came]:
    """What has come to the entrances of methods; who is held there stays so for the test."""
    came: list[Came] = []
    come = entrance.Entrance.come

    def noted(self: entrance.Entrance, call: Any) -> None:
        before = Came(self.gate, self.gate.handler)
        come(self, call)
        came.append(before)

    monkeypatch.setattr(entrance.Entrance, "come", noted)
    monkeypatch.setattr(entrance, "REFUSAL_SECONDS", _LONG_SECONDS)
    return came


@ahead
async def test_what_is_held_has_no_task(long_shut: pytest.MonkeyPatch, held: list[Came]) -> None:
    busy = Busy()
    async with busy.called() as connection:
        await until(lambda: len(held) == 1 + _CALLS)
        await until(lambda: _calls() == [])
        assert busy.asked == 1
        assert connection.open == _CALLS
        assert not busy.refused


@ahead
async def test_what_is_held_is_let_in_as_the_gate_opens(
    long_shut: pytest.MonkeyPatch, held: list[Came]
) -> None:
    busy = Busy()
    async with busy.called() as connection:
        await until(lambda: len(held) == 1 + _CALLS)
        busy.busy = False
        first = held[0]
        first.gate.open(first.handler)
        await until(lambda: connection.open == 0)
        assert all(call.reply for call in connection.calls)


@pytest.fixture
def one_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method begins one call, and holds the others."""
    for name in ("_ENOUGH", "_MANY"):
        monkeypatch.setattr(entrance, name, 1)


@ahead
async def test_reads_that_wait_for_a_view_keep_no_others_from_being_answered(
    one_at_once: None, held: list[Came]
) -> None:
    view = Freshness({"view": "log"})

    async def get(request: GetOrderRequest, context: Context) -> GetOrderResponse:
        if request.order_id == "late":
            await view.reached({"log": 1}, PATIENCE)
        return await echo(request, context)

    async with serving(Edge(get)) as client, asyncio.TaskGroup() as group:
        late = [group.create_task(client.get("late")) for _ in range(3)]
        await until(lambda: view._waiting == len(late))
        assert await client.get("soon") == "soon"
        view.advanced("view", 1)
        assert await asyncio.gather(*late) == ["late"] * len(late)


@ahead
async def test_what_is_held_hears_that_the_server_stops(one_at_once: None, held: list[Came]) -> None:
    """And calls elsewhere: nobody is to wait for a server that is gone to have less to do."""

    async def get(_request: GetOrderRequest, _context: Context) -> GetOrderResponse:
        await forever()
        return GetOrderResponse()

    async with serving(Edge(get), limits=Limits(grace=0.5)) as client, asyncio.TaskGroup() as group:
        refusals = [group.create_task(client.refusal()) for _ in range(5)]
        await until(lambda: len(held) == len(refusals))
        await client.stop()
        told = [await refusal for refusal in refusals]
        reasons = [
            detail(rich(each), ErrorInfo).reason
            for each in told
            if each.code() == grpc.StatusCode.UNAVAILABLE and each.trailing_metadata()
        ]
        assert reasons == ["STOPPING"] * 4, told


@ahead
async def test_what_is_refused_is_answered_together(long_shut: pytest.MonkeyPatch) -> None:
    busy = Busy()
    async with busy.called() as connection:
        await until(lambda: connection.open == 0)
        assert busy.asked == 1
        assert busy.refused == ["OVERLOADED"] * _CALLS
        assert not any(call.reply for call in connection.calls)


@ahead
async def test_a_method_that_is_called_asks_for_many_calls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """While others wait in turn: each of its calls that comes is there at once."""
    asking: Counter[bytes] = Counter()
    request = accepting._Core._request_registered_call

    async def counted(core: Any, method: bytes) -> Any:
        asking[method] += 1
        try:
            return await request(core, method)
        finally:
            asking[method] -= 1

    monkeypatch.setattr(accepting._Core, "_request_registered_call", counted)
    async with serving(Edge()) as client:
        for _ in range(2 * accepting._MOST):
            await client.get()
        await until(lambda: asking[f"/{NAME}/GetOrder".encode()] == accepting._MOST)
        assert asking[f"/{NAME}/ListOrders".encode()] == 1


@ahead
async def test_what_waits_in_the_core_is_known_to_the_call() -> None:
    acceptor = accepting.Acceptor([])
    gate = gates.Gate()
    gate.open(grpc.unary_unary_rpc_method_handler(unanswered))
    acceptor.add("a.Service", {"Do": gate})
    port = acceptor.server.add_insecure_port("127.0.0.1:0")
    await acceptor.server.start()
    load = Load(f"127.0.0.1:{port}", "a.Service/Do", refusals=True)
    async with load.idle(100, b""):
        await until(lambda: acceptor.waiting == 100)  # nothing is accepted yet
        await acceptor.start()
        await until(lambda: acceptor.waiting == 0)
        await until(lambda: len(acceptor._calls) == 100)
    await acceptor.stop(0)


@ahead
async def test_what_the_core_drops_does_not_count_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its own limits the core drops calls before anybody can accept them, and never says that they ended."""
    most, sent = 100, 300
    limits = [
        ("grpc.server.max_pending_requests", most // 2),
        ("grpc.server.max_pending_requests_hard_limit", most),
    ]
    acceptor = accepting.Acceptor(limits)
    gate = gates.Gate()
    gate.open(grpc.unary_unary_rpc_method_handler(unanswered))
    acceptor.add("a.Service", {"Do": gate})
    port = acceptor.server.add_insecure_port("127.0.0.1:0")
    await acceptor.server.start()
    load = Load(f"127.0.0.1:{port}", "a.Service/Do", refusals=True)
    async with load.idle(sent, b"") as connection:
        await until(lambda: connection.open <= most and acceptor.waiting == connection.open)
        with monkeypatch.context() as patched:
            patched.setattr(accepting, "_MOST_CONNECTIONS", 1)
            async with load.idle(0, None):
                await until(lambda: acceptor._opened() is None)
                assert acceptor.waiting == sent, "too many connections to be asked"
        await until(lambda: acceptor._opened() == connection.open)
        await acceptor.start()
        await until(lambda: len(acceptor._calls) == connection.open)
        assert acceptor.waiting == 0
    await acceptor.stop(0)


@ahead
async def test_a_call_that_cannot_be_accepted_is_said_and_the_next_one_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = ["once"]
    request = accepting._Core._request_registered_call

    async def failed(core: Any, method: bytes) -> Any:
        if method.endswith(b"/GetOrder") and failing:
            raise RuntimeError(failing.pop())
        return await request(core, method)

    monkeypatch.setattr(accepting._Core, "_request_registered_call", failed)
    with capture_logs() as said:
        async with serving(Edge()) as client:
            assert await client.get("hello") == "hello"
    assert [line["method"] for line in said if line["event"] == "rpc.not_accepted"] == [f"/{NAME}/GetOrder"]


@ahead
async def test_what_is_not_served_is_said_whatever_its_path_and_others_are() -> None:
    async with serving(Edge()) as client:
        for path in (f"/{NAME}/Nothing", "/nothing", "nothing", "/\udcff/\udc80"):
            call = client.channel.unary_unary(path.encode("utf-8", "surrogateescape"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"")
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED, path
        assert await client.get("hello") == "hello"


async def test_a_stopping_server_holds_calls_until_none_waits_in_the_core() -> None:
    boundary, waiting = Boundary("shop"), [0, 0, 3]
    await boundary.hold_calls(waiting.pop)
    assert waiting == [0]


async def test_a_stopping_server_holds_calls_and_refuses_none() -> None:
    """Whoever is refused comes again, and finds the server closed."""
    boundary = Boundary("shop", most_calls=10)
    gate = boundary.wrap("a.Service/Do", grpc.unary_unary_rpc_method_handler(unanswered))
    assert gate.too_much
    gate.shut(gate.too_much(2000))
    assert gate.refusal
    await boundary.hold_calls()
    assert not gate.refusal


async def test_a_grpcio_of_other_names_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "is_known", lambda: False)
    busy = Busy(busy=False)
    async with serving(Edge(busy.get)) as client:
        assert await client.get("hello") == "hello"
        stream = client.stub.WatchOrder(WatchOrderRequest())
        assert [response.order.order_id async for response in stream] == ["0", "1", "2"]
        busy.busy = True
        for refused in [
            await client.refusal(),
            *await asyncio.gather(*(client.refusal() for _ in range(20))),
        ]:
            assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert detail(rich(refused), ErrorInfo).reason == "OVERLOADED"
            assert detail(rich(refused), RetryInfo).retry_delay.seconds == 1


async def unanswered(_request: bytes, _context: Context) -> bytes:
    await forever()
    return b""


def _calls() -> list[str]:
    return [
        task.get_name()
        for task in asyncio.all_tasks()
        if task.get_name() == "rpc_task" or "HandleExceptions" in task.get_name()
    ]


@ahead
async def test_a_server_has_stopped_once_its_calls_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that were cut off: what they clean up needs what is closed next."""
    monkeypatch.setattr(accepting, "_LEAVING_SECONDS", _LONG_SECONDS)  # a busy machine may take its time
    begun: list[str] = []
    ended: list[str] = []

    async def get(_request: GetOrderRequest, _context: Context) -> GetOrderResponse:
        try:
            begun.append("call")
            await asyncio.Event().wait()
            return GetOrderResponse()
        finally:
            for _ in range(50):  # turns of the loop, as where something is given back
                await asyncio.sleep(0)
            ended.append("call")

    services = [(Edge(get), generated.add_OrderQueryServiceServicer_to_server, NAME)]
    async with serve(services, domain="shop", limits=Limits(grace=0)) as server:
        load = Load(server.address, f"{NAME}/GetOrder", refusals=True)
        async with load.idle(3, _MESSAGE):
            await until(lambda: len(begun) == 3)  # one that is cut off before that has nothing to clean up
    assert ended == ["call"] * 3
    assert _calls() == []
