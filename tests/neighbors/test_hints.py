"""What is said outside the streams is a hint to look, never a fact, whoever says it and however often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from nats.aio.msg import Msg

from tests.kernel.batches import grow
from tests.virtual_time import in_virtual_time
from tests.waiting import until
from twinlog import Unavailable
from twinlog.jetstream import api
from twinlog.jetstream.client import Answers
from twinlog.jetstream.hints import APART_SECONDS
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.rpc import freshness
from twinlog.rpc.freshness import SUBJECT, Announcer, Freshness, ViewLagging
from twinlog.testing import MemoryLog, MemoryTwin
from twinlog.testing.conformance.damage import take
from twinlog.testing.internals import NatsClient, Relay

CONSUMERS = {"projector.orders": "orders", "projector.customers": "customers"}
MALFORMED = [
    b"",
    b"not json",
    b"\xff\xfe",
    b"[" * 100_000,
    b"null",
    b"[1, 2]",
    b"{}",
    b'{"consumer": "projector.orders"}',
    b'{"consumer": 7, "position": 7, "orders": []}',
    b'{"consumer": "projector.orders", "position": "7", "orders": []}',
    b'{"consumer": "projector.orders", "position": 7, "orders": {"a": 1}}',
    b'{"consumer": "projector.orders", "position": 7, "orders": [1, null, [], {}]}',
    b'{"consumer": "nobody", "position": 7, "orders": []}',
    b'{"consumer": "projector.orders", "position": 1e400, "orders": []}',
    b" " * 500_000,
]


class Store:
    """Views whose checkpoints the test sets, and which counts the looks at them."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.looks = 0
        self.away = False

    async def checkpoints(self) -> Mapping[str, int]:
        self.looks += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable
        return dict(self.now)


class Messages:
    """Delivers what is published at once."""

    def __init__(self) -> None:
        self._heard: list[Callable[[Any], Awaitable[None]]] = []
        self.sent = 0

    async def publish(self, subject: str, payload: bytes) -> None:
        assert subject == SUBJECT
        self.sent += 1
        for heard in self._heard:
            await heard(Msg(cast(Any, None), subject, "", payload))

    async def subscribe(self, subject: str, *, cb: Callable[[Any], Awaitable[None]]) -> None:
        self._heard.append(cb)


class Replica:
    """A projector, as far as it hears and looks."""

    def __init__(self, messages: Messages, store: Store) -> None:
        self.store = store
        self.messages = messages
        self.freshness = Freshness(CONSUMERS)
        self.announcer = Announcer(messages, cast(Any, store), self.freshness)

    async def hint(self, position: int, *orders: str, consumer: str = "projector.orders") -> None:
        """Somebody says that a view has advanced."""
        message = {"consumer": consumer, "position": position, "orders": orders}
        await self.messages.publish(SUBJECT, json.dumps(message).encode())


@asynccontextmanager
async def replica(messages: Messages | None = None, store: Store | None = None) -> AsyncIterator[Replica]:
    """One at work, which has looked once."""
    one = Replica(messages or Messages(), store or Store())
    before = one.store.looks
    running = asyncio.create_task(one.announcer.run())
    try:
        await until(lambda: one.store.looks > before)
        await asyncio.sleep(0.02)  # the time that looks keep apart at least
        yield one
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@in_virtual_time
async def test_a_forged_position_is_not_believed() -> None:
    async with replica() as one:
        one.store.now = {"projector.orders": 3}
        await one.hint(1_000_000)
        with pytest.raises(ViewLagging) as lagging:
            await one.freshness.reached({"orders": 4}, 0.1)
        assert lagging.value.facts["reached"] == "3"
        await one.freshness.reached({"orders": 3}, 0)


@pytest.mark.parametrize("first", ["hint", "query"])
@in_virtual_time
async def test_an_honest_hint_makes_a_query_go_on(first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "_LOOK_EVERY_SECONDS", 3_600.0)  # so that nothing but the hint does
    async with replica() as one:
        one.store.now = {"projector.orders": 7}
        if first == "hint":
            await one.hint(7)
        waiting = asyncio.create_task(one.freshness.reached({"orders": 7}, 30))
        await asyncio.sleep(0)
        if first == "query":
            await one.hint(7)
        await waiting


@in_virtual_time
async def test_a_hint_that_nobody_waits_for_costs_no_look() -> None:
    async with replica() as one:
        looks = one.store.looks
        for position in range(1_000):
            await one.hint(position, f"order {position}")
        await asyncio.sleep(0.05)
        assert one.store.looks - looks <= 1  # the one of the second, if it came just then


async def test_a_flood_of_hints_costs_a_bounded_number_of_looks() -> None:
    loop = asyncio.get_running_loop()
    async with replica() as one, one.freshness.watching("order 1"):
        waiting = asyncio.create_task(one.freshness.reached({"orders": 9}, 60))
        began, looks, hints = loop.time(), one.store.looks, 0
        while hints < 500 or loop.time() - began < 0.5:
            hints += 1
            await one.hint(1_000_000, "order 1")
            await asyncio.sleep(0)
        seconds = loop.time() - began
        assert 2 <= one.store.looks - looks <= seconds * 100 + 2
        one.store.now = {"projector.orders": 9}
        await waiting


@in_virtual_time
async def test_a_watcher_is_woken_by_a_look_and_not_by_the_hint() -> None:
    async with replica() as one, one.freshness.watching("a") as a, one.freshness.watching("b") as b:
        one.store.now = {"projector.orders": 7}
        looks = one.store.looks
        await one.hint(7, "a")
        assert not a.is_set()
        await until(a.is_set)
        assert one.store.looks > looks
        assert not b.is_set()


@in_virtual_time
async def test_a_watcher_whose_hint_was_lost_is_woken_all_the_same() -> None:
    async with replica() as one, one.freshness.watching("a") as a:
        one.store.now = {"projector.orders": 7}
        await until(a.is_set)


@in_virtual_time
async def test_a_replica_does_not_look_for_what_it_committed_itself() -> None:
    async with replica() as one, one.freshness.watching("a"):
        looks = one.store.looks
        for position in range(1, 100):
            one.announcer.committed("projector.orders", position, {})
            await one.freshness.reached({"orders": position}, 0)
        await until(lambda: one.messages.sent == 99)
        assert one.store.looks - looks <= 2


@in_virtual_time
async def test_replicas_hear_of_each_other() -> None:
    messages, store = Messages(), Store()
    async with replica(messages, store) as one, replica(messages, store) as two:
        waiting = asyncio.create_task(two.freshness.reached({"orders": 5}, 30))
        await asyncio.sleep(0)
        store.now = {"projector.orders": 5}
        one.announcer.committed("projector.orders", 5, {})
        await waiting


@pytest.mark.parametrize("data", MALFORMED, ids=lambda data: repr(data[:30]))
@in_virtual_time
async def test_a_malformed_message_ends_nothing(data: bytes) -> None:
    async with replica() as one, one.freshness.watching("a"):
        waiting = asyncio.create_task(one.freshness.reached({"orders": 5}, 30))
        await asyncio.sleep(0)
        await one.messages.publish(SUBJECT, data)
        one.store.now = {"projector.orders": 5}
        await one.hint(5)
        await waiting


@in_virtual_time
async def test_an_outage_only_delays() -> None:
    async with replica() as one:
        one.store.away = True
        waiting = asyncio.create_task(one.freshness.reached({"orders": 5}, 30))
        await asyncio.sleep(0)
        await one.hint(5)
        one.store.now, one.store.away = {"projector.orders": 5}, False
        await waiting


# --- the relay's ---


class Counted(MemoryLog):
    """Counts how often it is read."""

    reads = 0

    async def read(self, after: int, limit: int) -> Any:
        self.reads += 1
        return await super().read(after, limit)


class Hinted(MemoryTwin):
    """A stream in memory, with the notifications of one in JetStream."""

    def __init__(self, twin: JetStreamTwin) -> None:
        super().__init__(twin.name)
        self._twin = twin

    async def notify(self) -> None:
        await self._twin.notify()

    async def notified(self, timeout_seconds: float) -> None:
        await self._twin.notified(timeout_seconds)


async def test_a_flood_of_notifications_costs_a_bounded_number_of_reads(
    nats: NatsClient, stream: str
) -> None:
    log, twin = Counted(stream), Hinted(JetStreamTwin(nats, stream))
    loop = asyncio.get_running_loop()
    relaying = asyncio.create_task(Relay(log, twin).run())
    try:
        await until(lambda: twin.messages is not None)
        began, reads = loop.time(), log.reads
        while loop.time() - began < 1:
            for _ in range(50):
                await nats.publish(f"twinlog.poke.{stream}", b"\xff whatever")
            await nats.flush()
        assert log.reads - reads <= (loop.time() - began) / APART_SECONDS * 1.5 + 20
        await grow(log, 3)
        await twin.notify()
        await until(lambda: twin.last == 3)
        assert not relaying.done()
    finally:
        relaying.cancel()
        await asyncio.gather(relaying, return_exceptions=True)


async def test_a_lone_notification_is_not_delayed(nats: NatsClient, stream: str) -> None:
    twin = JetStreamTwin(nats, stream)
    waiting = asyncio.create_task(twin.notified(60))
    await until(lambda: twin._hints._listening)
    await nats.flush()
    await twin.notify()
    await asyncio.wait_for(waiting, 60)


# --- what answers come by ---


@pytest.mark.parametrize("reply", ["$JS.ACK.", "$JS.ACK.a.b.c.d.e.f.g", "$JS.ACK.a.b.1.x.y.1.0"])
async def test_a_malformed_message_in_a_delivery_ends_no_connection(
    nats: NatsClient, stream: str, reply: str
) -> None:
    twin, log = JetStreamTwin(nats, stream), MemoryLog(stream)
    await twin.create(1)
    async with twin.deliver(0) as delivery:
        inbox = delivery._inbox  # type: ignore[attr-defined]
        await nats.publish(inbox, b"junk", reply=reply)
        await nats.publish(inbox, b"", headers={"Status": "100", "Nats-Last-Consumer": "many"})
        await nats.flush()
        await twin.publish(await grow(log, 3))
        assert [event.position for event in await take(delivery, 3)] == [1, 2, 3]
    assert (await twin.state()).last == 3


NO_ANSWERS = [
    b"",
    b"junk",
    b"[]",
    b"null",
    b"7",
    b'{"error": 7}',
    b'{"error": null}',
    b"\xff",
    b"[" * 100_000,
]
_EMPTY = b'{"config": {"subjects": ["STREAM.*.*.*"]}, "state": {}}'


@pytest.mark.parametrize(
    "data",
    [*NO_ANSWERS, b"{}", b'{"config": 1, "state": 2}', _EMPTY],
    ids=lambda data: repr(data[:30]),
)
async def test_a_forged_answer_about_a_stream_is_an_outage(
    nats: NatsClient, stream: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come before the server's own: that ends no process, not even at its start."""
    twin = JetStreamTwin(nats, stream)
    await twin.create(1)
    answered = nats.request

    async def forged(subject: str, *args: Any, **kwargs: Any) -> Msg:
        return Msg(nats, subject, "", data.replace(b"STREAM", stream.encode()))

    monkeypatch.setattr(nats, "request", forged)
    with pytest.raises(Unavailable):
        await twin.state()
    with pytest.raises(Unavailable):
        await api.pending(nats, stream, 1, [">"])
    with pytest.raises(Unavailable):
        await api.next_message(nats, stream, 1, ">")
    monkeypatch.setattr(nats, "request", answered)
    assert (await twin.state()).last == 0


@pytest.mark.parametrize("data", NO_ANSWERS, ids=lambda data: repr(data[:30]))
async def test_a_forged_answer_to_an_event_is_an_outage(
    nats: NatsClient, stream: str, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin, log = JetStreamTwin(nats, stream), MemoryLog(stream)
    await twin.create(1)
    events, published = await grow(log, 3), nats.publish_all

    async def forged(messages: Any, timeout_seconds: float) -> Answers:
        await published(messages, timeout_seconds)
        return Answers(data, data)

    monkeypatch.setattr(nats, "publish_all", forged)
    with pytest.raises(Unavailable):
        await twin.publish(events)
    monkeypatch.setattr(nats, "publish_all", published)
    relay = Relay(log, twin)
    relaying = asyncio.create_task(relay.run())
    await until(lambda: relay.position == 3)
    relaying.cancel()
    await asyncio.gather(relaying, return_exceptions=True)
