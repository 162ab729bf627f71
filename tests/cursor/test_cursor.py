"""Effects happen exactly once and in order, whatever happens to the process, its twin and its servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests import servers
from tests.cursor.consumers import KINDS, VIEWS_PACKAGE, Kind, PolicyKind, ViewKind, consumer_in
from tests.forks import forks
from tests.kernel.batches import grow
from tests.twin.damage import Damage, JetStreamDamage, MemoryDamage
from tests.waiting import until
from twinlog import Recorded, Unavailable
from twinlog.consume.cursor import Handler
from twinlog.consume.filling import Filling
from twinlog.dev import EmbeddedNats, EmbeddedPostgres
from twinlog.jetstream import api
from twinlog.jetstream import connection as jetstream
from twinlog.jetstream import delivery as delivery_module
from twinlog.log import relay
from twinlog.log.lease import ALWAYS_HELD, HELD_UP, Lease
from twinlog.log.ports import Handled
from twinlog.postgres.lease import PostgresLease
from twinlog.testing import MemoryLog, MemoryViews
from twinlog.testing.internals import CheckpointMoved, Cursor, NatsClient, PostgresLog, Relay, Twin, open_log


@dataclass
class Stage:
    """A source log with its twin, and a consumer of it."""

    source: MemoryLog
    damage: Damage
    consumer: Kind
    log: PostgresLog | None = None
    """The consumer's, where it is in Postgres."""
    grown: int = field(default=0)

    @property
    def twin(self) -> Twin:
        return self.damage.twin()

    async def grow(self, count: int) -> None:
        """Adds events to the source, one batch each three."""
        for _ in range(count // 3):
            await grow(self.source, 3)
        self.grown = await self.source.head()

    async def is_copied(self) -> bool:
        """Whether the twin has all that the source has."""
        return (await self.twin.state()).last == self.grown

    async def done(self) -> None:
        """Returns when the effects are those of every event, once each and in order. They stay so."""

        async def all_handled() -> bool:
            return len(await self.consumer.effects()) >= self.grown

        await until(all_handled)
        assert list(await self.consumer.effects()) == list(range(1, self.grown + 1))


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was destroyed is noticed soon."""
    monkeypatch.setattr(relay, "_INSPECT_SECONDS", 0.1)
    monkeypatch.setattr(delivery_module, "_HEARTBEAT_SECONDS", 0.2)


@pytest.fixture(params=["memory", "servers"])
def urls(request: pytest.FixtureRequest) -> tuple[str, str] | None:
    """Of the Postgres and the NATS that are worked with; None: in memory."""
    if request.param == "memory":
        return None
    return request.getfixturevalue("postgres_url"), request.getfixturevalue("nats_url")


@pytest.fixture(params=KINDS)
async def stage(request: pytest.FixtureRequest, urls: tuple[str, str] | None) -> AsyncIterator[Stage]:
    if urls is None:
        yield memory_stage(request.param)
        return
    async with AsyncExitStack() as stack:
        yield await servers_stage(stack, *urls, request.param)


def memory_stage(kind: str) -> Stage:
    name = servers.unique()
    consumer = PolicyKind(name, MemoryLog("own")) if kind == "policies" else ViewKind(name, MemoryViews())
    return Stage(MemoryLog(name), MemoryDamage(name), consumer)


async def servers_stage(stack: AsyncExitStack, postgres_url: str, nats_url: str, kind: str) -> Stage:
    client = await jetstream.connect(nats_url, "tests")
    stack.push_async_callback(jetstream.close, client)
    name = await stack.enter_async_context(servers.stream(client))
    database = await stack.enter_async_context(servers.database(postgres_url))
    log = await stack.enter_async_context(open_log(postgres_url, database, "own", VIEWS_PACKAGE))
    return Stage(MemoryLog(name), JetStreamDamage(client, name), consumer_in(log, name, kind), log)


@asynccontextmanager
async def relaying(stage: Stage) -> AsyncIterator[None]:
    async with running(Relay(stage.source, stage.twin)):
        yield


@asynccontextmanager
async def following(stage: Stage, lease: Lease = ALWAYS_HELD) -> AsyncIterator[Cursor]:
    """A replica at work as long as the block takes; what happens to it at the end is a crash, not a stop."""
    async with stage.consumer.replica() as handler:
        cursor = Cursor(stage.twin, handler, lease)
        async with running(cursor):
            yield cursor


@asynccontextmanager
async def running(work: Relay | Cursor | Filling) -> AsyncIterator[None]:
    task = asyncio.create_task(work.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Wrapped:
    """A handler with something around it."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.name, self.types, self.routing_key = handler.name, handler.types, handler.routing_key

    async def checkpoint(self) -> int:
        return await self._handler.checkpoint()

    async def stored(self) -> int:
        return await self._handler.stored()

    async def last_handled(self) -> Handled | None:
        return await self._handler.last_handled()

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        return await self._handler.handle(events, after)


class StopsAfterCommit(Wrapped):
    """Commits, and never gets to hear of it."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler)
        self.committed = asyncio.Event()

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        await super().handle(events[:5], after)
        self.committed.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


class Begins(Wrapped):
    """Says that it has begun, and may be killed in the midst of its commit."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler)
        self.begun = asyncio.Event()

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        self.begun.set()
        return await super().handle(events, after)


class Races(Wrapped):
    """Handles its first batch when the other replica is about to handle the same."""

    def __init__(self, handler: Handler, ready: asyncio.Barrier) -> None:
        super().__init__(handler)
        self._ready: asyncio.Barrier | None = ready
        self.lost = 0

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        if self._ready:
            ready, self._ready = self._ready, None
            await ready.wait()
        try:
            return await super().handle(events, after)
        except CheckpointMoved:
            self.lost += 1
            raise


class Held(Wrapped):
    """Handles nothing until it may."""

    def __init__(self, inner: Handler) -> None:
        super().__init__(inner)
        self.go_on = asyncio.Event()

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        await self.go_on.wait()
        return await super().handle(events, after)


class FailsAtFirst(Wrapped):
    """Its store is away for the first tries."""

    def __init__(self, handler: Handler, tries: int) -> None:
        super().__init__(handler)
        self.left = tries

    async def handle(self, events: Sequence[Recorded], after: int) -> int:
        if self.left:
            self.left -= 1
            raise Unavailable("the store is away")
        return await super().handle(events, after)


async def test_killed_between_the_commit_and_the_next_fetch(stage: Stage) -> None:
    async with relaying(stage):
        await stage.grow(30)
        for _ in range(3):
            async with stage.consumer.replica() as handler:
                deadly = StopsAfterCommit(handler)
                async with running(Cursor(stage.twin, deadly)):
                    await asyncio.wait_for(deadly.committed.wait(), 60)
        async with following(stage):
            await stage.done()
            await stage.grow(30)
            await stage.done()


async def test_killed_in_the_midst_of_the_commit(stage: Stage) -> None:
    async with relaying(stage):
        for _ in range(4):
            await stage.grow(30)
            async with stage.consumer.replica() as handler:
                begins = Begins(handler)
                async with running(Cursor(stage.twin, begins)):
                    await asyncio.wait_for(begins.begun.wait(), 60)
        async with following(stage):
            await stage.done()


async def test_two_replicas_that_handle_the_same_events_at_once(stage: Stage) -> None:
    ready = asyncio.Barrier(2)
    async with relaying(stage), stage.consumer.replica() as one, stage.consumer.replica() as two:
        await stage.grow(30)
        both = [Races(one, ready), Races(two, ready)]
        async with running(Cursor(stage.twin, both[0])), running(Cursor(stage.twin, both[1])):
            await stage.done()
            await until(lambda: both[0].lost + both[1].lost >= 1)
            await stage.grow(30)
            await stage.done()


async def test_two_replicas_at_once_without_a_lease(stage: Stage) -> None:
    async with relaying(stage), following(stage), following(stage):
        for _ in range(4):
            await stage.grow(60)
            await stage.done()


async def test_a_replica_takes_over_the_lease(stage: Stage) -> None:
    if stage.log is None:
        leases: list[Lease] = [
            ALWAYS_HELD,
            ALWAYS_HELD,
        ]  # in memory there are none; the checkpoint is fence enough
    else:
        leases = [PostgresLease(stage.log.pool, "work", holder, seconds=1) for holder in ("one", "two")]
    async with relaying(stage), following(stage, leases[0]):
        await stage.grow(30)
        await stage.done()
        async with following(stage, leases[1]):
            await stage.grow(30)
            await stage.done()
    async with relaying(stage), following(stage, leases[1]):
        await stage.grow(30)
        await stage.done()


async def test_the_zombies_transaction_fails(stage: Stage) -> None:
    events = await grow(stage.source, 9)
    async with stage.consumer.replica() as zombie, stage.consumer.replica() as successor:
        await successor.handle(events[:6], 0)
        with pytest.raises(CheckpointMoved):
            await zombie.handle(events[:3], 0)
        assert list(await stage.consumer.effects()) == [1, 2, 3, 4, 5, 6]
        assert await zombie.checkpoint() == 6
        await zombie.handle(events[6:], 6)
    assert list(await stage.consumer.effects()) == list(range(1, 10))


async def test_the_consumer_is_deleted_on_the_server(stage: Stage) -> None:
    async with relaying(stage), following(stage):
        for _ in range(3):
            await stage.grow(30)
            await stage.done()
            await stage.damage.delete_consumers()


@pytest.mark.parametrize(
    "harm",
    [
        lambda stage: stage.damage.purge(),
        lambda stage: stage.damage.purge(keep=3),
        lambda stage: stage.damage.remove(40),
        lambda stage: stage.twin.delete(),
    ],
    ids=["purged", "trimmed", "hole", "deleted"],
)
async def test_the_stream_is_lost_while_it_is_followed(
    stage: Stage, harm: Callable[[Stage], Awaitable[None]]
) -> None:
    async with relaying(stage), following(stage):
        await stage.grow(60)
        await stage.done()
        await harm(stage)
        await stage.grow(60)
        await stage.done()


async def test_an_outage_is_waited_for_visibly(stage: Stage) -> None:
    async with relaying(stage), stage.consumer.replica() as handler:
        cursor = Cursor(stage.twin, FailsAtFirst(handler, 3))
        async with running(cursor):
            await stage.grow(30)
            await until(lambda: cursor.problem == "the store is away")
            await stage.done()
            await until(lambda: cursor.problem is None)


async def test_events_that_take_too_long_are_a_problem(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinlog.consume.cursor._STALLED_SECONDS", 0.05)
    async with relaying(stage), stage.consumer.replica() as handler:
        held = Held(handler)
        cursor = Cursor(stage.twin, held)
        async with running(cursor):
            await stage.grow(30)
            await until(lambda: f"have been handled for 0 s; {HELD_UP}" in (cursor.problem or ""))
            held.go_on.set()
            await stage.done()
            await until(lambda: cursor.problem is None)


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_nats_is_restarted_while_it_is_followed(
    own_nats: EmbeddedNats, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "REQUEST_TIMEOUT_SECONDS", 1.0)
    client = await jetstream.connect(own_nats.url, "tests")
    stage = Stage(
        MemoryLog("source"),
        JetStreamDamage(client, "source"),
        PolicyKind("source", MemoryLog("own")),
    )
    async with relaying(stage), following(stage):
        for _ in range(2):
            await stage.grow(30)
            await stage.done()
            await (own_nats.kill() if way == "kill" else own_nats.stop())
            await stage.grow(30)
            await own_nats.start()
            await stage.done()
    await jetstream.close(client)


@pytest.mark.parametrize("kind", KINDS)
async def test_postgres_is_killed_while_it_is_followed(own_postgres: EmbeddedPostgres, kind: str) -> None:
    async with open_log(own_postgres.url, "own", "own", VIEWS_PACKAGE) as log:
        stage = Stage(MemoryLog("source"), MemoryDamage("source"), consumer_in(log, "source", kind), log)
        async with relaying(stage), following(stage) as cursor:
            await stage.grow(30)
            await stage.done()
            await own_postgres.kill()
            await stage.grow(30)
            await until(lambda: stage.is_copied())
            assert cursor.position == 30
            await own_postgres.start()
            await until(lambda: cursor.position == 60)
            await stage.done()
            await until(lambda: cursor.problem is None)


@pytest.mark.parametrize("kind", KINDS)
async def test_processes_that_are_killed_after_their_commit(
    postgres_url: str, database: str, nats_url: str, nats: NatsClient, stream: str, kind: str
) -> None:
    async with open_log(postgres_url, database, "own", VIEWS_PACKAGE) as log:
        stage = Stage(MemoryLog(stream), JetStreamDamage(nats, stream), consumer_in(log, stream, kind), log)
        async with relaying(stage):
            await stage.grow(60)
            arguments = [postgres_url, database, "own", nats_url, stream, kind]
            handled = 0
            async with forks("tests.cursor.process", *arguments) as processes:
                for _ in range(3):
                    assert await processes.ended(await processes.start()) == -signal.SIGKILL
                    before, handled = handled, len(await stage.consumer.effects())
                    assert before < handled < 60
            async with following(stage):
                await stage.done()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_checkpoint_that_somebody_set_below_every_event_is_before_the_first(
    postgres_url: str, database: str, kind: str
) -> None:
    async with open_log(postgres_url, database, "own", VIEWS_PACKAGE) as log:
        stage = Stage(MemoryLog("source"), MemoryDamage("source"), consumer_in(log, "source", kind), log)
        await log.pool.execute("INSERT INTO checkpoints (consumer, position) VALUES ('tests.source', -5)")
        async with relaying(stage), following(stage) as cursor:
            await stage.grow(30)
            await stage.done()
            await until(lambda: cursor.problem is None)
        assert await log.checkpoint("tests.source") == 30
