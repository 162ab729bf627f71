"""How calls are accepted: many at once, and refused without anything being made for them."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc._cython import cygrpc
from structlog.testing import capture_logs

from proof.bench.load import Connection, Load
from shop.queries.v1 import order_query_service_pb2_grpc as generated
from shop.queries.v1.order_query_service_pb2 import GetOrderRequest, GetOrderResponse, WatchOrderRequest
from tests.kernel.edge import NAME, Edge, detail, echo, forever, rich, serving
from tests.waiting import until
from twinlog.model.errors import Overloaded
from twinlog.rpc import Context, Limits, accepting, gates, serve
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


@ahead
async def test_what_is_refused_has_no_task(long_shut: pytest.MonkeyPatch) -> None:
    long_shut.setattr(accepting, "REFUSAL_SECONDS", _LONG_SECONDS)
    busy = Busy()
    async with busy.called() as connection:
        await until(lambda: len(busy.refused) == _CALLS)
        await until(lambda: _calls() == [])
        assert busy.asked == 1
        assert connection.open == _CALLS


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


def test_calls_are_late_where_there_are_many_and_they_would_wait() -> None:
    """However slow the machine is, a few calls never are; many are by the pace at which they are accepted."""
    many = accepting._MANY
    assert not accepting.is_late(many, 0, 60.0)
    assert accepting.is_late(many + 1, 0, 0.1)
    for waiting, pace, late in ((many + 1, 10_000, False), (5_000, 10_000, True), (5_000, 1_000, True)):
        assert accepting.is_late(waiting, pace // 10, 0.1) == late, (waiting, pace)


def test_a_refusal_takes_longer_where_many_are_refused() -> None:
    once = gates.REFUSAL_SECONDS
    assert [accepting.held_seconds(held) / once for held in (0, 500, 2_000, 20_000)] == [1, 1.5, 3, 3]


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
async def test_a_crowd_that_waits_too_long_is_refused_and_let_in_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused: list[int] = []
    acceptor = accepting.Acceptor([])
    gate, health = gates.Gate(), gates.Gate()
    for each in (gate, health):
        each.open(grpc.unary_unary_rpc_method_handler(unanswered))
    gate.too_much = refused.append
    acceptor.add("a.Service", {"Do": gate, "Check": health})
    monkeypatch.setattr(accepting.Acceptor, "waiting", accepting._MANY + 1)
    for _ in range(2 * accepting._MOST_LATE):
        for method in acceptor._methods:
            method.crowded = True
        acceptor._look()
    assert len(refused) == 2 * (accepting._MOST_LATE - 1)
    acceptor._look()
    assert len(refused) == 2 * (accepting._MOST_LATE - 1), "nothing is refused where no crowd came"
    await acceptor.stop(0)


@ahead
async def test_a_call_that_comes_as_the_server_ends_leaves_no_timer() -> None:
    acceptor = accepting.Acceptor([])

    async def come() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            acceptor._look_later()
            raise

    task = asyncio.create_task(come())
    acceptor._accepting.add(task)
    await asyncio.sleep(0)
    await acceptor.stop(0)
    assert acceptor._looking and acceptor._looking.cancelled()


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
async def test_what_the_core_drops_does_not_count_as_waiting_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call that is no POST, say, begins as the core counts them, and never ends."""
    monkeypatch.setattr(accepting, "_CALM_SECONDS", 0.01)
    acceptor = accepting.Acceptor([])
    port = acceptor.server.add_insecure_port("127.0.0.1:0")
    await acceptor.start()
    most = 20
    load = Load(f"127.0.0.1:{port}", "a.Service/Do", refusals=True)
    async with load.idle(0, None) as connection:
        connection.headers = b"\x82" + connection.headers[1:]  # :method GET
        for _ in range(most):
            connection.send(b"")
        await until(lambda: acceptor._not_accepted == most)
        await until(lambda: acceptor._lost == most)
        assert acceptor.waiting == 0
    await acceptor.stop(0)


@ahead
async def test_a_call_that_has_ended_in_the_core_and_not_yet_here_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = {"callsStarted": "1", "callsSucceeded": "1"}
    answer = json.dumps({"server": {"data": told}}).encode()
    monkeypatch.setattr(cygrpc, "channelz_get_server", lambda _id: answer)
    acceptor = accepting.Acceptor([])
    acceptor._count(acceptor._methods[0])
    call = asyncio.create_task(asyncio.sleep(0))
    acceptor._calls.add(call)
    assert acceptor.waiting == 0
    await call
    acceptor._calls.clear()
    assert acceptor.waiting == 0
    await acceptor.stop(0)


@ahead
@pytest.mark.parametrize(("takes_seconds", "asked"), [(0.0, 100), (1000.0, 1)])
async def test_what_takes_the_core_long_is_asked_for_less_often(
    takes_seconds: float, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks at every connection, and thousands of them would hold up all others."""
    answers = [json.dumps({"server": {"data": {"callsStarted": "7"}}}).encode()] * 100
    used = itertools.count(0.0, takes_seconds)
    monkeypatch.setattr(accepting, "thread_time", lambda: next(used))
    acceptor = accepting.Acceptor([])
    monkeypatch.setattr(cygrpc, "channelz_get_server", lambda _id: answers.pop())
    assert [acceptor.waiting for _ in range(100)] == [7] * 100
    assert len(answers) == 100 - asked
    await acceptor.stop(0)


@ahead
async def test_what_the_core_drops_does_not_count_as_waiting_where_crowds_come_on_and_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "_MANY", 10)
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
        await until(lambda: acceptor.waiting == sent)  # nothing is accepted yet
        await until(lambda: connection.open <= most and acceptor._opened() == connection.open)
        acceptor._crowded = True
        acceptor._settle()
        assert acceptor.waiting == connection.open
        monkeypatch.setattr(accepting, "_MOST_CONNECTIONS", 1)
        async with load.idle(0, None):
            await until(lambda: acceptor._opened() is None)
        await acceptor.start()
        await until(lambda: len(acceptor._calls) == connection.open)
        assert acceptor.waiting == 0
    await acceptor.stop(0)


@ahead
async def test_a_crowd_is_refused_in_parts_so_that_others_have_their_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(accepting.Acceptor, "_send", lambda _self, call, _refusal: sent.append(call))
    acceptor = accepting.Acceptor([])
    refusal = gates.Refusal(8, "", (), lambda: None)
    most = accepting._MOST_TOGETHER
    acceptor._held.extend(accepting._Held(0.0, call, refusal) for call in range(3 * most))
    acceptor._refuse()
    assert len(sent) == most
    await until(lambda: len(sent) == 3 * most)
    assert sent == [*range(3 * most)]
    assert acceptor._timer is None
    await acceptor.stop(0)


@ahead
def test_what_waits_behind_a_crowd_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def settled(*turns: tuple[int, bool]) -> int:
        acceptor = accepting.Acceptor([])
        for counted, crowded in turns:
            monkeypatch.setattr(accepting.Acceptor, "_not_accepted", counted)
            monkeypatch.setattr(accepting.Acceptor, "_opened", lambda _self: None)
            acceptor._crowded = crowded
            acceptor._settle()
            assert acceptor._settling
            acceptor._settling.cancel()
        return acceptor._lost

    calms = accepting._CALMS
    calm = [(5, False)] * (calms - 1)
    assert asyncio.run(settled(*calm)) == 0
    assert asyncio.run(settled(*calm, (9, False))) == 5
    assert asyncio.run(settled(*calm, (4000, True))) == 0
    assert asyncio.run(settled((99, True), *calm, (7, False))) == 5
    assert asyncio.run(settled(*calm, (4000, False))) == 5, "after a standstill of the loop"


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

    async def crowded(_request: bytes, _context: Context) -> bytes:
        raise Overloaded(waiting=7)

    boundary = Boundary("shop", most_calls=10)
    gate = boundary.wrap("a.Service/Do", grpc.unary_unary_rpc_method_handler(crowded))
    assert gate.too_much
    refusals = []
    for stopping in (False, True):
        gate.too_much(2000)
        refusals.append(gate.refusal)
        if not stopping:
            await boundary.hold_calls()
            refusals.append(gate.refusal)
    assert [refusal is not None for refusal in refusals] == [True, False, False]


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
    ended: list[str] = []

    async def get(_request: GetOrderRequest, _context: Context) -> GetOrderResponse:
        try:
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
            await until(lambda: len(_calls()) == 3)
    assert ended == ["call"] * 3
    assert _calls() == []
