"""A thousand watchers of one server: what a change costs, what each of them costs, and what becomes of slow ones."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from proof.bench.load import Connection, Load
from shop.queries.v1.order_query_service_pb2 import Order, WatchOrderRequest, WatchOrderResponse
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from tests.kernel.edge import NAME, Client, Edge, detail, rich, serving
from tests.waiting import until
from tests.watches.board import CONSUMERS, Board, Piece, Watcher, first
from twinlog.log.view_store import ViewMoment
from twinlog.rpc import Change, Context
from twinlog.rpc.watcher import MOST_WAITING
from twinlog.testing import MemoryViews

T = TypeVar("T")

CONNECTIONS, OF_EACH = 8, 125
TOGETHER = 25
"""So many of them come at once: gRPC refuses what its server has not taken up within half a minute."""
MOST_BYTES = 10_000
LEFT, _ = CONSUMERS
PADDING = "x" * 20_000
"""A few messages of that are more than a connection takes while nobody reads."""

TAKES_LITTLE = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
"""Options of a channel that buffers no more than it has to."""


@asynccontextmanager
async def served(padding: str = "") -> AsyncIterator[tuple[Board, Client]]:
    """A board over gRPC: the order is the piece, its version the piece's."""
    board = Board(MemoryViews())

    def message(change: Change) -> WatchOrderResponse:
        order = Order(version=change.row.version, customer_id=padding)
        return WatchOrderResponse(order=order, resume_token=change.resume_token)

    class Watching(Edge):
        async def WatchOrder(
            self, request: WatchOrderRequest, context: Context
        ) -> AsyncIterator[WatchOrderResponse]:
            async for change in board.watches.row(request.order_id, request.resume_token):
                yield change.once(message)

    async with board.running(), serving(Watching()) as client:
        await board.write(LEFT, *((key, "red") for key in "abcdefgh"))
        yield board, client


def replies(crowd: Sequence[Connection]) -> Sequence[int]:
    """How many bytes each watcher has been told."""
    return [len(call.reply) for connection in crowd for call in connection.calls]


async def test_a_thousand_watchers_cost_one_read_a_change_and_10_kb_each() -> None:
    async with served() as (board, client), AsyncExitStack() as stack:
        load = Load(client.address, f"{NAME}/WatchOrder")
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            crowd = []
            for key in "abcdefgh":
                request = WatchOrderRequest(order_id=key).SerializeToString()
                crowd.append(await stack.enter_async_context(load.idle(0, request)))
                for _ in range(OF_EACH // TOGETHER):
                    for _ in range(TOGETHER):
                        crowd[-1].send(request)
                    await until(lambda: all(replies(crowd)))
            assert len(board.watches) == CONNECTIONS * OF_EACH
            gc.collect()
            each = (tracemalloc.get_traced_memory()[0] - before) / (CONNECTIONS * OF_EACH)
        finally:
            tracemalloc.stop()
        assert each < MOST_BYTES, "with what the test itself keeps of each"

        looks = board.watches.looks
        await board.settled()
        first, looks = replies(crowd), board.watches.looks
        for number in range(3):
            known = replies(crowd)
            await board.write(LEFT, *((key, "blue") for key in "abcdefgh"))
            await until(lambda known=known: all(map(int.__lt__, known, replies(crowd))))  # type: ignore[misc]
            assert board.watches.looks == looks + number + 1, "one read, whoever watches"
        assert len(set(replies(crowd))) <= 2, "all were told the same"
        assert min(replies(crowd)) > max(first)


async def test_many_filters_cost_one_read_too() -> None:
    board = Board(MemoryViews())
    async with board.running() as watches:
        crowd = [Watcher(f"color {number}") for number in range(300)]
        for watcher in crowd:
            watcher.connect(watches)
        await board.settled()
        looks = watches.looks
        await board.write(LEFT, *((f"{number}", f"color {number}") for number in range(300)))
        await until(lambda: all(watcher.held for watcher in crowd))
        assert watches.looks == looks + 1
        for watcher in crowd:
            await watcher.disconnect()


async def test_those_who_come_back_together_cost_one_read() -> None:
    board = Board(MemoryViews())
    crowd = [Watcher() for _ in range(100)]
    async with board.running() as watches:
        for watcher in crowd:
            watcher.connect(watches)
        await board.settled()
        for watcher in crowd:
            await watcher.disconnect()
    await board.write(LEFT, ("a", "red"))
    board.restart()
    async with board.running() as watches:
        for watcher in crowd:
            watcher.connect(watches)
        await until(lambda: all(watcher.held for watcher in crowd))
        assert watches.looks == 1
        for watcher in crowd:
            await watcher.disconnect()


async def test_a_slow_watcher_is_cut_off_and_goes_on_from_its_token() -> None:
    async with (
        served(PADDING) as (board, client),
        grpc.aio.insecure_channel(client.address, options=TAKES_LITTLE) as channel,
    ):
        slow = OrderQueryServiceStub(channel).WatchOrder(WatchOrderRequest(order_id="a"), timeout=280)
        last = await slow.read()
        for _ in range(MOST_WAITING + 30):
            await board.write(LEFT, ("a", "red"))
            await board.settled()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            while True:
                message = await slow.read()
                assert isinstance(message, WatchOrderResponse)
                last = message
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        info = detail(rich(refused.value), ErrorInfo)
        assert info.reason == "WATCH_TOO_SLOW"
        assert info.metadata["resume_token"] == last.resume_token
        assert last.order.version < board.version

        again = client.stub.WatchOrder(
            WatchOrderRequest(order_id="a", resume_token=last.resume_token), timeout=120
        )
        assert (await again.read()).order.version == board.version
        again.cancel()


async def test_one_whose_first_rows_cannot_be_read_fails_alone() -> None:
    """Those who came with it, or were there, notice nothing."""

    async def broken(_moment: ViewMoment) -> Sequence[Piece]:
        raise LookupError("a defect")

    board = Board(MemoryViews())
    before, beside, after = [Watcher("red") for _ in range(3)]
    async with asyncio.timeout(60), board.running() as watches:
        before.connect(watches)
        await board.settled()
        beside.connect(watches)
        failing = asyncio.ensure_future(anext(watches.many({"color": "red"}, "", broken)))
        after.connect(watches)
        with pytest.raises(LookupError):
            await failing
        await board.settled()
        await board.write(LEFT, ("a", "red"))
        await board.settled()
        for watcher in (before, beside, after):
            assert [*watcher.held] == ["a"]
            await watcher.disconnect()


async def test_a_store_with_a_defect_fails_also_those_who_came_with_one_that_failed_alone() -> None:
    """What went wrong before says nothing of the next look."""

    class Broken(MemoryViews):
        broken = False

        async def at_once(self, read: Callable[[ViewMoment], Awaitable[T]]) -> T:
            if self.broken:
                raise LookupError("a defect of the store")
            return await super().at_once(read)

    async def broken(_moment: ViewMoment) -> Sequence[Piece]:
        store.broken = True
        raise LookupError("a defect of the query")

    store = Broken()
    async with asyncio.timeout(60), Board(store).running() as watches:
        failing = asyncio.ensure_future(anext(watches.many({"color": "red"}, "", broken)))
        beside = asyncio.ensure_future(anext(watches.many({"color": "red"}, "", first)))
        with pytest.raises(LookupError, match="of the query"):
            await failing
        with pytest.raises(LookupError, match="of the store"):
            await beside


async def test_a_watcher_that_is_cut_off_holds_up_nobody() -> None:
    board = Board(MemoryViews())
    async with board.running() as watches:
        stuck, quick = watches.row("a"), Watcher(key="a")
        quick.connect(watches)
        joining = asyncio.ensure_future(anext(stuck))
        await board.settled()
        await joining
        for _ in range(MOST_WAITING + 5):
            await board.write(LEFT, ("a", "red"))
            await board.settled()
        assert quick.held["a"].version == board.version
        await quick.disconnect()
