"""Whatever happens, message n of the stream is event n of the log; where it cannot be, the relay says why."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import pytest

from tests import servers
from tests.forks import forks
from tests.kernel.batches import append, batch, counter, grow
from tests.twin.damage import Damage, JetStreamDamage
from tests.twin.messages import newer, older
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog import Log, Recorded, Unavailable
from twinlog.dev import EmbeddedNats
from twinlog.jetstream import api
from twinlog.jetstream import connection as jetstream
from twinlog.log import relay as relaying
from twinlog.testing import MemoryLog
from twinlog.testing.internals import JetStreamTwin, NatsClient, Relay, Twin, open_log, to_wire


class Pair(NamedTuple):
    """A log and its stream."""

    log: Log
    damage: Damage
    twin: Twin


@pytest.fixture
def postgres(server: str | None, request: pytest.FixtureRequest) -> str | None:
    return request.getfixturevalue("postgres_url") if server else None


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was destroyed is noticed soon."""
    monkeypatch.setattr(relaying, "_INSPECT_SECONDS", 0.1)


@pytest.fixture
async def pair(damage: Damage, postgres: str | None) -> AsyncIterator[Pair]:
    twin = damage.twin()
    async with log_in(postgres, twin.name) as log:
        yield Pair(log, damage, twin)


@pytest.fixture
async def restored(pair: Pair, postgres: str | None) -> AsyncIterator[Log]:
    """The log of the same name in a restored database."""
    async with log_in(postgres, pair.twin.name) as log:
        yield log


@asynccontextmanager
async def log_in(postgres: str | None, name: str) -> AsyncIterator[Log]:
    """A log in a database of its own; in memory where there is no server."""
    if postgres is None:
        yield MemoryLog(name)
        return
    async with servers.database(postgres) as database, open_log(postgres, database, name) as log:
        yield log


class Unreliable:
    """A twin whose publishing fails now and then, before or after the batch is stored."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._twin, name)

    async def publish(self, events: Sequence[Recorded]) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            raise Unavailable("lost before")
        await self._twin.publish(events)
        if self.calls % 3 == 1:
            raise Unavailable("lost after")


async def test_what_is_offered_and_what_is_found_is_copied(pair: Pair) -> None:
    log, _, twin = pair
    await grow(log, 1200)
    relay = Relay(log, twin)
    async with running(relay):
        await mirrored(log, twin)
        relay.offer(await grow(log, 5))
        await grow(log, 5, "b")
        relay.offer(await grow(log, 5))
        await relay.drain(60)
        assert relay.position == 1215
        assert relay.problem is None
    await mirrored(log, twin)


async def test_two_relays_at_once_write_no_gap_and_no_duplicate(pair: Pair) -> None:
    log, damage, twin = pair
    relays = [Relay(log, damage.twin()) for _ in range(2)]
    async with running(*relays):
        for round in range(30):
            events = await grow(log, round + 1)
            for relay in relays:
                relay.offer(events)
        await mirrored(log, twin)


async def test_a_reply_that_is_lost_is_made_up_for(pair: Pair) -> None:
    log, _, twin = pair
    unreliable = Unreliable(twin)
    relay = Relay(log, unreliable)  # type: ignore[arg-type]
    async with running(relay):
        for _ in range(6):
            await grow(log, 10)
            await mirrored(log, twin)
    assert unreliable.calls >= 6


@pytest.mark.parametrize("busy", [False, True], ids=["quiet", "busy"])
@pytest.mark.parametrize(
    "harm",
    [
        lambda damage: damage.purge(),
        lambda damage: damage.purge(keep=3),
        lambda damage: damage.remove(4),
        lambda damage: damage.remove(20),
        lambda damage: damage.twin().delete(),
    ],
    ids=["purged", "trimmed", "hole", "last removed", "deleted"],
)
async def test_what_the_stream_lost_is_put_back(
    pair: Pair, harm: Callable[[Damage], Awaitable[None]], busy: bool
) -> None:
    log, damage, twin = pair
    await grow(log, 20)
    relay = Relay(log, twin)
    async with running(relay):
        await mirrored(log, twin)
        working = asyncio.create_task(work(log, relay)) if busy else None
        await harm(damage)
        await until(lambda: is_whole(twin))
        if working:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
        await mirrored(log, twin)


@pytest.mark.parametrize("harm", ["purge", "delete"])
async def test_what_the_stream_lost_while_nobody_relayed_is_put_back(pair: Pair, harm: str) -> None:
    log, damage, twin = pair
    await grow(log, 700)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)
    await (damage.purge() if harm == "purge" else twin.delete())
    await grow(log, 10)
    async with running(Relay(log, damage.twin())):
        await mirrored(log, twin)


async def test_a_stream_with_other_content_is_refused_until_it_is_deleted(pair: Pair) -> None:
    log, damage, twin = pair
    before = await grow(log, 5)
    await twin.create(1)
    for _ in range(3):
        await damage.put("7.Other.-", b"someone else's")
    relay = Relay(log, twin)
    async with running(relay):
        await until(lambda: relay.problem is not None)
        assert "its message 3 is not event 3 of the log" in str(relay.problem)
        assert f"Way out: `twinlog repair {twin.name}`" in str(relay.problem)
        assert relay.position is None
        assert [await twin.message(n) for n in (1, 2, 3)] == [b"someone else's"] * 3

        await twin.delete()
        await mirrored(log, twin)
        await until(lambda: relay.problem is None)
    assert await log.read(0, 10) == before


@pytest.mark.parametrize("write", [older, newer])
async def test_a_stream_from_before_or_after_an_upgrade_is_gone_on_with(
    pair: Pair, write: Callable[[Recorded], bytes]
) -> None:
    log, damage, twin = pair
    *_, last = events = await grow(log, 3)
    await twin.create(1)
    await twin.publish(events[:-1])
    await damage.put(last.subject.partition(".")[2], write(last))
    relay = Relay(log, twin)
    async with running(relay):
        await grow(log, 2)
        await until(lambda: relay.position == 5)
        assert relay.problem is None
    assert await twin.message(3) == write(last) != to_wire(last)


async def test_other_content_is_not_deleted_where_it_has_holes(pair: Pair) -> None:
    log, damage, twin = pair
    await grow(log, 5)
    await twin.create(1)
    for _ in range(3):
        await damage.put("7.Other.-", b"someone else's")
    await damage.remove(2)
    relay = Relay(log, twin)
    async with running(relay):
        await until(lambda: relay.problem is not None)
    assert await twin.message(3) == b"someone else's"


async def test_a_stream_ahead_of_its_log_is_refused_with_the_way_out(pair: Pair, restored: Log) -> None:
    log, _, twin = pair
    await grow(log, 30)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)
    before = await grow(restored, 20)

    relay = Relay(restored, twin)
    async with running(relay):
        await until(lambda: relay.problem is not None)
        assert "the stream has 30 events, the log only 20: the database was set back" in str(relay.problem)
        assert "two histories from event 1 on" in str(relay.problem)
        assert f"`twinlog repair {log.name}` puts it back" in str(relay.problem)
        assert await restored.read(0, 100) == before
        assert (await twin.state()).last == 30
        assert await twin.message(30) == to_wire((await log.read(29, 1))[0])

        # One way out: the events are given up.
        await twin.delete()
        await mirrored(restored, twin)
        await until(lambda: relay.problem is None)


async def test_a_stream_ahead_of_its_log_is_taken_up_by_the_right_database(pair: Pair, restored: Log) -> None:
    log, _, twin = pair
    await grow(log, 30)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)
    refused = Relay(restored, twin)
    async with running(refused):
        await until(lambda: refused.problem is not None)

    # The other way out: a database that has them.
    await grow(log, 1)
    relay = Relay(log, twin)
    async with running(relay):
        await mirrored(log, twin)
        assert relay.problem is None


async def test_an_idle_replica_pokes_once_for_each_offer(pair: Pair) -> None:
    log, damage, twin = pair
    pokes = CountsPokes(damage.twin())
    relay = Relay(log, pokes, Never())  # type: ignore[arg-type]
    await twin.create(1)
    async with running(relay, Relay(log, twin)):
        for number in range(1, 4):
            relay.offer(await grow(log, 1))
            await mirrored(log, twin)
            await until(lambda n=number: pokes.sent >= n)  # type: ignore[misc]
            for _ in range(20):
                await twin.state()
            assert pokes.sent == number


class TestWithServers:
    """What only real servers do."""

    async def test_relays_that_are_killed_before_they_hear_the_reply(
        self, postgres_url: str, database: str, nats_url: str, nats: NatsClient, stream: str
    ) -> None:
        twin = JetStreamTwin(nats, stream)
        async with open_log(postgres_url, database, stream) as log:
            await twin.create(1)
            arguments = (postgres_url, database, stream, nats_url)
            async with forks("tests.twin.relay_process", *arguments) as processes:
                for round in range(1, 4):
                    await grow(log, 700)
                    assert await processes.ended(await processes.start()) == -signal.SIGKILL
                    assert (await twin.state()).last == 500 * round
            async with running(Relay(log, twin)):
                await mirrored(log, twin)

    @pytest.mark.parametrize("way", ["stop", "kill"])
    async def test_the_server_is_restarted(
        self, own_nats: EmbeddedNats, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api, "REQUEST_TIMEOUT_SECONDS", 1.0)
        client = await jetstream.connect(own_nats.url, "tests")
        log, twin = MemoryLog("counters"), JetStreamTwin(client, "counters")
        relay = Relay(log, twin)
        async with running(relay):
            working = asyncio.create_task(work(log, relay))
            for _ in range(3):
                reached = await log.head()
                await until(lambda: (relay.position or 0) > reached)  # noqa: B023
                await (own_nats.kill() if way == "kill" else own_nats.stop())
                await own_nats.start()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            await mirrored(log, twin)
        await jetstream.close(client)

    async def test_the_store_is_lost(self, own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(api, "REQUEST_TIMEOUT_SECONDS", 1.0)
        client = await jetstream.connect(own_nats.url, "tests")
        log, twin = MemoryLog("counters"), JetStreamTwin(client, "counters")
        await grow(log, 100)
        relay = Relay(log, twin)
        async with running(relay):
            await mirrored(log, twin)
            await own_nats.kill()
            shutil.rmtree(own_nats.store)
            await own_nats.start()
            await mirrored(log, twin)
        await jetstream.close(client)

    async def test_a_stream_for_other_subjects_is_refused(self, nats: NatsClient, stream: str) -> None:
        await nats.jsm().add_stream(name=stream, subjects=[f"{stream}.other"])
        log = MemoryLog(stream)
        await grow(log, 3)
        relay = Relay(log, JetStreamTwin(nats, stream))
        async with running(relay):
            await until(lambda: relay.problem is not None)
            assert "made by someone else" in str(relay.problem)
            await JetStreamDamage(nats, stream).twin().delete()
            await mirrored(log, JetStreamTwin(nats, stream))


async def work(log: Log, relay: Relay) -> None:
    """Appends for ever, and offers only some of it."""
    for number in range(10_000):
        await append(log, batch((counter(f"busy-{number}"), 0, 1)))
        if number % 3:
            relay.offer(await log.read(await log.head() - 1, 1))
        await asyncio.sleep(0.01)


async def is_whole(twin: Twin) -> bool:
    with suppress(Exception):
        state = await twin.state()
        return state.first == 1 and state.last >= 20 and not state.holes
    return False


class CountsPokes:
    """A twin that counts the pokes it sends."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self.sent = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._twin, name)

    async def notify(self) -> None:
        self.sent += 1
        await self._twin.notify()


class Never:
    """A lease that another replica holds."""

    problem: str | None = None

    async def hold(self, work: Callable[[], Awaitable[None]]) -> None:
        await asyncio.Event().wait()
