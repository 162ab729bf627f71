"""The faults. Each is a function that breaks a shop under load and returns when the fault is over."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import asyncpg
import grpc.aio
from google.type.money_pb2 import Money
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy

from proof.chaos import crowds
from proof.chaos.databases import (
    connections_taken,
    isolation,
    pooler,
    postgres_read_only,
    postgres_refuses,
    rights,
    tables_renamed,
    view_locked,
)
from proof.chaos.failover import failover
from proof.chaos.load import MODES
from proof.chaos.poison import poison
from proof.chaos.proxy import Proxy
from proof.chaos.rig import Layout, Replica, Rig
from proof.chaos.stage import Stage
from proof.chaos.starts import latin1, neighbor, poolers
from shop.orders.v1.order_pb2 import REJECTION_REASON_DEADLINE_EXCEEDED
from shop.orders.v1.order_service_pb2 import CreateOrderRequest
from shop.orders.v1.order_service_pb2_grpc import OrderServiceStub
from shop.queries.v1.order_query_service_pb2 import GetOrderRequest
from shop.queries.v1.order_query_service_pb2_grpc import OrderQueryServiceStub
from stack.topology import DATABASES, ORDER_SVC, PROJECTOR, SHOP_LOGS, stream_of
from twinlog.dev import EmbeddedNats
from twinlog.testing.internals import VIEWS_CHANGED, connect

_PAST_EVERY_LEASE_SECONDS = 6.5
"""A lease that is not renewed ends after five seconds."""
_STOP_WITHIN_SECONDS = 5.0
_ELECTION_SECONDS = 30.0
_FORGED_SECONDS = 4.0


@dataclass(frozen=True)
class Scenario:
    """A fault, and the shop that it happens to."""

    name: str
    what: str
    """One line for people."""
    layout: Layout
    fault: Callable[[Stage], Awaitable[None]]
    short: bool = False
    """Whether it belongs to the short run."""
    codes: frozenset[str] = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
    """The error codes that clients may see besides refusals; the last one while too much waits for what is broken."""
    rate: float = 100.0
    """Approximate requests per second."""


PLAIN = Layout()
DOUBLE = Layout(replicas=2)
PROXIED = Layout(proxied=True)
POOLED = Layout(pooled=True)
CLUSTER = Layout(nats=3)
APART = Layout(replicas=2, clocks_ahead=(60.0, -60.0))


# --- processes ---


async def kill_each(stage: Stage) -> None:
    """kill -9 of each service, one after the other."""
    for replica in stage.rng.sample(stage.rig.all, len(stage.rig.all)):
        await stage.kill(replica)
        await stage.go_on(stage.rng.uniform(0.2, 1.5))
        await replica.ready()


async def kill_pairs(stage: Stage) -> None:
    """kill -9 of two services at once: three pairs out of the six."""
    for pair in stage.rng.sample(list(combinations(stage.rig.all, 2)), 3):
        await asyncio.gather(*(stage.kill(replica) for replica in pair))
        await stage.go_on(stage.rng.uniform(0.2, 1.0))
        await asyncio.gather(*(replica.ready() for replica in pair))


async def freeze_each(stage: Stage) -> None:
    """SIGSTOP of one replica of each service past every lease, while another works; then SIGCONT: a zombie."""
    await _freeze(stage, [stage.rng.choice(replicas) for replicas in stage.rig.replicas.values()])


async def freeze_alone(stage: Stage) -> None:
    """SIGSTOP of the only process of a service, past every lease; two services, then a pair."""
    chosen = stage.rng.sample(stage.rig.all, 4)
    await _freeze(stage, chosen[:1])
    await _freeze(stage, chosen[1:2])
    await _freeze(stage, chosen[2:])


async def _freeze(stage: Stage, replicas: list[Replica]) -> None:
    stage.say(f"SIGSTOP {', '.join(map(str, replicas))}")
    for replica in replicas:
        replica.freeze()
    try:
        await stage.go_on(_PAST_EVERY_LEASE_SECONDS)
    finally:
        stage.say(f"SIGCONT {', '.join(map(str, replicas))}")
        for replica in replicas:
            replica.thaw()
    await stage.go_on(1.0)


async def kill_replicas(stage: Stage) -> None:
    """Two replicas of every service; one of a service at a time is killed, then both of one."""
    for replicas in stage.rng.sample(list(stage.rig.replicas.values()), 4):
        await stage.kill(stage.rng.choice(replicas))
        await stage.go_on(stage.rng.uniform(0.3, 1.2))
    both = stage.rng.choice(list(stage.rig.replicas.values()))
    await asyncio.gather(*(stage.kill(replica) for replica in both))
    await stage.rig.ready()


async def rolling_restart(stage: Stage) -> None:
    """SIGTERM of every process, one after the other."""
    for replica in stage.rig.all:
        stage.say(f"SIGTERM {replica}")
        seconds = await replica.stop()
        if seconds > _STOP_WITHIN_SECONDS:
            stage.complain(f"{replica} took {seconds:.1f} s to stop")
        await replica.ready()


async def mode_switch(stage: Stage) -> None:
    """The mode of new orders goes back and forth, and services die in between."""
    for step in range(6):
        mode = MODES[step % 2]
        await stage.load.switch(mode)
        stage.say(f"mode {step % 2 + 1}")
        if step in (2, 4):
            await stage.kill(stage.rng.choice(stage.rig.all))
        await stage.go_on(stage.rng.uniform(0.3, 1.0))
    await stage.rig.ready()


# --- servers ---


async def postgres_killed(stage: Stage) -> None:
    """kill -9 of Postgres, twice: back at once, and after a while."""
    await _killed_twice(stage, "Postgres", stage.rig.postgres.kill, stage.rig.restart_postgres)


async def nats_killed(stage: Stage) -> None:
    """kill -9 of NATS, twice: back at once, and after a while."""
    (nats,) = stage.rig.nats
    await _killed_twice(stage, "NATS", nats.kill, nats.start)


async def _killed_twice(
    stage: Stage, name: str, kill: Callable[[], Awaitable[object]], start: Callable[[], Awaitable[object]]
) -> None:
    for away in (0.0, stage.rng.uniform(2.0, 4.0)):
        stage.say(f"kill -9 {name}, back in {away:.1f} s")
        await kill()
        await asyncio.sleep(away)
        await start()
        await stage.go_on(1.5)


async def nats_wiped(stage: Stage) -> None:
    """kill -9 of NATS, and its store is gone when it comes back."""
    (nats,) = stage.rig.nats
    stage.say("kill -9 NATS, its store wiped")
    await nats.kill()
    shutil.rmtree(nats.store)
    await nats.start()


async def nats_rolled_back(stage: Stage) -> None:
    """NATS comes back with the store of some seconds ago."""
    (nats,) = stage.rig.nats
    kept = nats.folder / "kept"
    await nats.stop()
    shutil.copytree(nats.store, kept)
    await nats.start()
    await stage.go_on(2.5)
    stage.say("kill -9 NATS, its store set back")
    await nats.kill()
    shutil.rmtree(nats.store)
    kept.rename(nats.store)
    await nats.start()


async def both_killed(stage: Stage) -> None:
    """kill -9 of Postgres, NATS and a service at the same time."""
    (nats,) = stage.rig.nats
    replica = stage.rng.choice(stage.rig.all)
    stage.say(f"kill -9 Postgres, NATS, {replica}")
    await asyncio.gather(stage.rig.postgres.kill(), nats.kill(), replica.kill())
    await asyncio.sleep(1.0)
    await asyncio.gather(stage.rig.restart_postgres(), nats.start())


# --- a cluster of NATS ---


async def leader_lost(stage: Stage) -> None:
    """kill -9 of the server that leads a stream, for each stream."""
    for log in SHOP_LOGS:
        leader = await _leader(stage.rig, log)
        stage.say(f"kill -9 {leader.folder.name}, which leads {log}")
        await leader.kill()
        await stage.go_on(stage.rng.uniform(2.0, 3.0))
        await leader.start()
        await stage.go_on(1.0)


async def quorum_lost(stage: Stage) -> None:
    """kill -9 of two servers out of three, then they come back."""
    lost = stage.rng.sample(list(stage.rig.nats), 2)
    stage.say(f"kill -9 {' and '.join(server.folder.name for server in lost)}")
    await asyncio.gather(*(server.kill() for server in lost))
    await stage.go_on(4.0)
    await asyncio.gather(*(server.start() for server in lost))


async def _leader(rig: Rig, log: str) -> EmbeddedNats:
    """The server that leads a stream. Waits for an election; raises TimeoutError where that takes too long."""
    client = await connect(rig.nats_url, "chaos")
    try:
        async with asyncio.timeout(_ELECTION_SECONDS):
            while True:
                with suppress(NatsError):
                    cluster = (await client.jsm(timeout=2).stream_info(stream_of(log))).cluster
                    leaders = [each for each in rig.nats if cluster and each.folder.name == cluster.leader]
                    if leaders:
                        return leaders[0]
                await asyncio.sleep(0.2)
    finally:
        await client.close()


# --- the network ---


@contextmanager
def _mended(proxies: Sequence[Proxy]) -> Iterator[None]:
    """Mends them after the block, however that ends."""
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.mend()


async def connections_cut(stage: Stage) -> None:
    """Connections to Postgres and NATS break at random moments, and some are refused for a while."""
    proxies = stage.rig.proxies
    for _ in range(12):
        with _mended(proxies):
            for proxy in stage.rng.sample(proxies, stage.rng.randint(1, 4)):
                proxy.cut()
                proxy.refusing = stage.rng.random() < 0.3
            await stage.go_on(stage.rng.uniform(0.1, 0.8))


async def connections_slow(stage: Stage) -> None:
    """Everything is late, and some connections are held up for seconds and then cut."""
    proxies = stage.rig.proxies
    with _mended(proxies):
        stage.say("20 to 150 ms of delay")
        for proxy in proxies:
            proxy.delay = stage.rng.uniform(0.02, 0.15)
        await stage.go_on(4.0)
        held = stage.rng.sample(proxies, 3)
        stage.say("three connections held up")
        for proxy in held:
            proxy.hold()
        await stage.go_on(4.0)
        for proxy in held:
            proxy.cut()


async def connections_lost(stage: Stage) -> None:
    """No connection to Postgres and NATS passes anything any more, and nobody is told; new ones work."""
    stage.say("all connections lost without a word")
    for proxy in stage.rig.proxies:
        proxy.lose()
    await stage.felt("cursor.stopped")  # a writer says so if it was appending


async def stops_held_up(stage: Stage) -> None:
    """SIGTERM of every process while nothing comes from Postgres and NATS, which are not known to be away."""
    with _mended(stage.rig.proxies):
        stage.say("all connections held up")
        for proxy in stage.rig.proxies:
            proxy.hold()
        await stage.go_on(1.0)
        stage.say("SIGTERM of every process")
        for replica, seconds in zip(stage.rig.all, await _stop_all(stage.rig), strict=True):
            if seconds > _STOP_WITHIN_SECONDS:
                stage.complain(f"{replica} took {seconds:.1f} s to stop")
        for proxy in stage.rig.proxies:
            proxy.cut()


async def _stop_all(rig: Rig) -> list[float]:
    return await asyncio.gather(*(replica.stop() for replica in rig.all))


# --- limits, hints, leases, clocks ---


async def streams_full(stage: Stage) -> None:
    """Somebody limits each stream to what it has; the relays wait, and go on once there is room."""
    client = await connect(stage.rig.nats_url, "chaos")
    try:
        streams = client.jsm(timeout=10)
        for log in SHOP_LOGS:
            found = await streams.stream_info(stream_of(log))
            stage.say(f"stream {log} takes no more than its {found.state.messages} messages")
            limit = replace(found.config, max_msgs=found.state.messages, discard=DiscardPolicy.NEW)
            try:
                await streams.update_stream(limit)
                await stage.go_on(2.5)
            finally:
                await streams.update_stream(found.config)
            await stage.go_on(1.0)
    finally:
        await client.close()
    await stage.felt("relay.stopped")


async def forged(stage: Stage) -> None:
    """Somebody says all the time that views are far ahead; who reads what they wrote has to find it."""
    client = await connect(stage.rig.nats_url, "chaos")
    lies = [
        json.dumps({"consumer": f"projector.{log}", "position": 10**9, "orders": []}) for log in SHOP_LOGS
    ]
    ended = asyncio.get_running_loop().time() + _FORGED_SECONDS
    reads = found = 0
    try:
        async with (
            grpc.aio.insecure_channel(stage.rig.addresses(ORDER_SVC.name)[0]) as orders,
            grpc.aio.insecure_channel(stage.rig.addresses(PROJECTOR.name)[0]) as queries,
        ):
            while asyncio.get_running_loop().time() < ended:
                for lie in lies:
                    await client.publish(VIEWS_CHANGED, lie.encode())
                    await client.publish(f"twinlog.poke.{stream_of(ORDER_SVC.log)}", lie.encode())
                reads += 1
                found += await _reads_its_write(stage, orders, queries)
    finally:
        await client.close()
    stage.say(f"{found} of {reads} reads found what was written before")
    if found < reads:
        stage.complain(f"{reads - found} of {reads} reads did not find what was written before")


async def _reads_its_write(stage: Stage, orders: grpc.aio.Channel, queries: grpc.aio.Channel) -> bool:
    """Whether an order that was just created is found by its token. What is refused or late was not found out."""
    order = CreateOrderRequest(
        customer_id=stage.load.rich, total=Money(currency_code="EUR", nanos=10_000_000)
    )
    try:
        made = await OrderServiceStub(orders).CreateOrder(order, timeout=10)
        query = GetOrderRequest(order_id=made.order_id, consistency_token=made.consistency_token)
        await OrderQueryServiceStub(queries).GetOrder(query, timeout=10)
    except grpc.aio.AioRpcError as error:
        return bool(error.code() != grpc.StatusCode.NOT_FOUND)
    return True


async def leases_ahead(stage: Stage) -> None:
    """Every lease ends an hour from now, and is of a process that is gone."""
    for replica in stage.rig.all:
        await stage.kill(replica)
    stage.say("every lease ends an hour from now")
    for database in DATABASES:
        statement = "UPDATE leases SET holder = 'killed', expires_at = clock_timestamp() + interval '1 hour'"
        await _value(f"{stage.rig.postgres.url}/{database}", statement)
    await stage.rig.ready()


async def clocks_apart(stage: Stage) -> None:
    """One replica of each service is a minute fast, the other slow; no order may end by its deadline."""
    await stage.go_on(8.0)
    for replica in stage.rig.all:
        async with grpc.aio.insecure_channel(replica.address) as channel:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service="clock"))
        if answer.status != HealthCheckResponse.NOT_SERVING:
            stage.complain(f"{replica} does not say that its clock is off")
    query = f"SELECT count(*) FROM orders WHERE reason = {REJECTION_REASON_DEADLINE_EXCEEDED}"
    if late := await _value(f"{stage.rig.postgres.url}/{PROJECTOR.database}", query):
        stage.complain(f"{late} orders were rejected at their deadline")


async def _value(url: str, query: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


# --- full disks ---


async def postgres_full(stage: Stage) -> None:
    """No room is left for Postgres; then there is again."""
    disk, postgres = stage.rig.disk, stage.rig.postgres
    assert disk is not None
    stage.say("Postgres's disk is full")
    try:
        disk.fill()
        await stage.go_on(5.0)
        await stage.felt("writer.store_unavailable")
    finally:
        disk.free()
    stage.say("there is room again")
    if not await _answers(stage.rig):
        # It gave up: an operator starts it again.
        await postgres.kill()
        await stage.rig.restart_postgres()


async def _answers(rig: Rig) -> bool:
    try:
        async with asyncio.timeout(5):
            while not await rig.postgres._answers():
                await asyncio.sleep(0.2)
    except TimeoutError:
        return False
    return True


async def nats_full(stage: Stage) -> None:
    """No room is left for NATS, which turns JetStream off; an operator makes room and starts it again."""
    disk, (nats,) = stage.rig.disk, stage.rig.nats
    assert disk is not None
    stage.say("NATS's disk is full")
    try:
        disk.fill()
        await stage.go_on(8.0)  # NATS may say nothing: then it is noticed when the relay's request times out
        await stage.felt("relay.stopped")
    finally:
        disk.free()
    stage.say("there is room again; NATS starts again")
    await nats.stop()
    await nats.start()


async def nats_limit(stage: Stage) -> None:
    """JetStream reaches the room that it may use; an operator allows it more."""
    (nats,) = stage.rig.nats
    await stage.go_on(6.0)
    await stage.felt("relay.stopped")
    stage.say("more room for JetStream")
    nats.max_file = "1GB"
    await nats.stop()
    await nats.start()


# --- clients ---


async def impatient_clients(stage: Stage) -> None:
    """Clients give up after 1 to 20 ms, in the middle of commits."""
    stage.load.deadline = lambda rng: rng.uniform(0.001, 0.020)
    await stage.go_on(6.0)
    stage.load.deadline = lambda _rng: 3.0


SCENARIOS = [
    Scenario("kill-each", "kill -9 of each service in turn", PLAIN, kill_each, short=True),
    Scenario("kill-pairs", "kill -9 of two services at once", PLAIN, kill_pairs),
    Scenario("freeze-alone", "SIGSTOP past every lease, alone and in a pair", PLAIN, freeze_alone),
    Scenario("postgres-killed", "kill -9 of Postgres, twice", PLAIN, postgres_killed, short=True),
    Scenario("view-locked", "a view's table is locked, with a lock timeout", PLAIN, view_locked, short=True),
    Scenario("postgres-read-only", "Postgres is read-only for a while", PLAIN, postgres_read_only),
    Scenario("postgres-refuses", "Postgres refuses connections for a while", PLAIN, postgres_refuses),
    Scenario("tables-renamed", "a table of each database is renamed, and back", PLAIN, tables_renamed),
    Scenario("connections-taken", "others take every connection to Postgres", PLAIN, connections_taken),
    Scenario("failover", "Postgres without its last commits; repairs", PLAIN, failover),
    Scenario("streams-full", "each stream is at its limit for a while", PLAIN, streams_full),
    Scenario("forged", "somebody forges what is said outside the streams", PLAIN, forged),
    Scenario("nats-killed", "kill -9 of NATS, twice", PLAIN, nats_killed),
    Scenario("nats-wiped", "kill -9 of NATS, its store wiped", PLAIN, nats_wiped, short=True),
    Scenario("nats-set-back", "NATS back with an older store", PLAIN, nats_rolled_back),
    Scenario("both-killed", "kill -9 of both servers and a service", PLAIN, both_killed),
    Scenario("impatient", "deadlines of 1 to 20 ms", PLAIN, impatient_clients, rate=250.0),
    Scenario("mode-switch", "the mode goes back and forth", PLAIN, mode_switch),
    Scenario(
        "rolling-restart",
        "SIGTERM of every process in turn",
        PLAIN,
        rolling_restart,
        # Without a second replica, sagas wait for the service that is away. gRPC itself cancels what reaches a service
        # just as that closes.
        codes=frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "CANCELLED"}),
    ),
    Scenario("poison", "events that only a newer version knows", PLAIN, poison),
    Scenario("log-locked", "an operator's session holds the log's lock", PLAIN, crowds.log_locked),
    Scenario(
        "watchers",
        "4,096 idle streams to each service",
        PLAIN,
        crowds.watchers,
        codes=frozenset({"DEADLINE_EXCEEDED"}),
    ),
    Scenario("overload", "five times the capacity, in either mode", PLAIN, crowds.overload),
    Scenario("neighbor", "a second shop on the same NATS", PLAIN, neighbor),
    Scenario("latin1", "a second shop whose databases are in LATIN1", PLAIN, latin1),
    Scenario("rights", "users of Postgres with fewer rights, and too few", PLAIN, rights),
    Scenario("leases-ahead", "leases that end an hour from now", PLAIN, leases_ahead),
    Scenario("zombies", "SIGSTOP of a replica of each service", DOUBLE, freeze_each, short=True),
    Scenario("replicas", "two replicas of every service, kills", DOUBLE, kill_replicas),
    Scenario("isolation", "stricter isolation by default, two replicas", DOUBLE, isolation),
    Scenario(
        "rolling-replicas",
        "SIGTERM of every process of two replicas",
        DOUBLE,
        rolling_restart,
        codes=frozenset({"UNAVAILABLE", "CANCELLED"}),
    ),
    Scenario("connections-cut", "connections cut and refused", PROXIED, connections_cut),
    Scenario("connections-slow", "connections delayed and held up", PROXIED, connections_slow),
    Scenario("connections-lost", "connections lost without a word", PROXIED, connections_lost),
    Scenario("stops-held-up", "SIGTERM while Postgres and NATS hang", PROXIED, stops_held_up),
    Scenario("pooler", "pgbouncer pauses, disables, reconnects, is killed", POOLED, pooler),
    Scenario("pooler-modes", "pgbouncers that cannot be used", POOLED, poolers),
    Scenario("leader-lost", "3-node NATS loses stream leaders", CLUSTER, leader_lost),
    Scenario("quorum-lost", "3-node NATS loses two nodes", CLUSTER, quorum_lost),
    Scenario("clocks-apart", "replicas a minute fast and slow", APART, clocks_apart),
    Scenario("postgres-full", "Postgres's disk is full", Layout(disk="postgres"), postgres_full),
    Scenario("nats-full", "NATS's disk is full", Layout(disk="nats"), nats_full),
    Scenario("nats-limit", "JetStream reaches its limit", Layout(max_file="600KB"), nats_limit),
]
"""All of them; those of one layout together, since they share a shop."""
