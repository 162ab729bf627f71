"""Who may log in to NATS, and what is said where somebody may not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests import servers
from tests.kernel.batches import append, batch, counter, grow
from tests.twin.relaying import running
from tests.waiting import until
from twinlog import ConfigurationError, Unavailable
from twinlog.dev import EmbeddedNats
from twinlog.jetstream import api, delivery
from twinlog.jetstream import client as client_module
from twinlog.jetstream import connection as jetstream
from twinlog.jetstream.meaning import unavailable as meant
from twinlog.jetstream.urls import Servers
from twinlog.jetstream.urls import servers as named
from twinlog.log.lineage import Lineage
from twinlog.model.errors import WrongSetting
from twinlog.testing import MemoryLog
from twinlog.testing.internals import JetStreamTwin, NatsClient, Relay

PASSWORD = "p,w@1:%/#?"
ENCODED = "p,w%401:%25%2F%23%3F"


def login(password: str, permissions: str = "") -> str:
    return f'authorization {{ users: [{{ user: "shop+1", password: "{password}", {permissions} }}] }}'


@asynccontextmanager
async def nats_with(extra: str) -> AsyncIterator[EmbeddedNats]:
    with servers.folder() as folder:
        async with EmbeddedNats(Path(folder) / "nats", extra=extra) as server:
            yield server


def url_of(server: EmbeddedNats, password: str) -> str:
    return f"nats://shop%2B1:{password}@127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nats://h", Servers(["nats://h"])),
        ("nats://h:1,nats://i:2,tls://j", Servers(["nats://h:1", "nats://i:2", "tls://j"])),
        ("nats://h:1,i:2", Servers(["nats://h:1", "nats://i:2"])),
        ("nats://a:b@h:1,i:2", Servers(["nats://h:1", "nats://i:2"], "a", "b")),
        ("nats://a:b,c@h,nats://a:b,c@i", Servers(["nats://h", "nats://i"], "a", "b,c")),
        ("nats://a%3A:%40%2C%25@h", Servers(["nats://h"], "a:", "@,%")),
        ("nats://a:b@c@h", Servers(["nats://h"], "a", "b@c")),
        ("nats://t%2Bk@h:1", Servers(["nats://h:1"], token="t+k")),
        ("nats://[::1]:4222", Servers(["nats://[::1]:4222"])),
    ],
)
def test_a_url_names_servers_and_a_login(url: str, expected: Servers) -> None:
    assert named(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "h:1",
        "nats://",
        "nats://a:b@",
        "nats://h:x",
        "nats://h:0",
        "nats://h:65536",
        "nats://a:b@h,nats://c:d@i",
    ],
)
def test_what_is_no_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as refused:
        named(url)
    assert "a:b" not in str(refused.value)


async def test_a_connection_to_what_is_no_url_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigurationError, match=r"^NATS_URL is wrong: must have a port"):
        await jetstream.connect("nats://a:b@h:x", "tests")


async def test_user_and_password_are_percent_decoded_and_a_comma_parts_nothing() -> None:
    async with nats_with(login(PASSWORD)) as server:
        client = await jetstream.connect(url_of(server, ENCODED), "tests")
        assert client.is_connected
        await jetstream.close(client)


async def test_a_wrong_password_is_refused_at_start_in_one_line() -> None:
    async with nats_with(login("right")) as server:
        with pytest.raises(ConfigurationError, match=r"^NATS_URL: NATS refuses the login") as refused:
            async with asyncio.timeout(60):
                await jetstream.connect(url_of(server, "not-that"), "tests")
        assert f"Authorization Violation': 127.0.0.1:{server.port}" in str(refused.value).replace(
            "n: ", "n': "
        )
        assert "not-that" not in str(refused.value)


async def test_a_password_that_is_changed_later_is_an_outage_with_the_same_line() -> None:
    async with nats_with(login("right")) as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        twin = JetStreamTwin(client, "orders")
        await twin.create(1)
        with capture_logs() as said:
            await server.stop()
            server.extra = login("another")
            await server.start()
            await until(lambda: client.fault is not None and "Violation" in str(client.fault))
            with pytest.raises(
                WrongSetting, match=rf"^NATS_URL: .*no connection to 127.0.0.1:{server.port}: Auth"
            ):
                await shortly(twin)
            await server.stop()
            server.extra = login("right")
            await server.start()
            await until(lambda: client.is_connected)
        assert (await twin.state()).last == 0
        await jetstream.close(client)
    assert [
        line["why"] for line in said if line["event"] == "nats.error" and line["log_level"] == "warning"
    ] == ["Authorization Violation"]


async def shortly(twin: JetStreamTwin) -> None:
    """Asks, and does not wait long for the answer."""
    twin._manager._timeout = 0.3
    await twin.message(1)


async def test_a_server_that_goes_away_is_named_in_the_reason(own_nats: EmbeddedNats) -> None:
    client = await jetstream.connect(own_nats.url, "tests")
    await own_nats.kill()
    await until(lambda: isinstance(client.fault, ConnectionRefusedError))
    with pytest.raises(Unavailable, match=rf"no connection to 127.0.0.1:{own_nats.port}: Connection refused"):
        await shortly(JetStreamTwin(client, "orders"))
    await own_nats.start()
    await until(lambda: client.is_connected)
    await jetstream.close(client)


async def test_a_permission_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = 'permissions: { publish: { deny: "$JS.API.STREAM.MSG.GET.>" } }'
    async with nats_with(login("right", denied)) as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        twin = JetStreamTwin(client, "orders")
        with suppress(Unavailable):
            await shortly(twin)
        await until(lambda: client.fault is not None)
        with pytest.raises(WrongSetting, match=r"^NATS_URL: this user lacks a permission .*get\.orders"):
            await shortly(twin)
        assert client.is_connected
        await jetstream.close(client)
    monkeypatch.setattr(api, "REQUEST_TIMEOUT_SECONDS", 1.0)  # the server says nothing in reply
    async with nats_with(login("right", 'permissions: { publish: { deny: "$JS.API.>" } }')) as server:
        with pytest.raises(ConfigurationError, match=r"^NATS_URL: this user lacks a permission"):
            await jetstream.connect(url_of(server, "right"), "tests")


async def test_a_subscription_that_the_server_took_away_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server lets permissions be changed while it runs; it ends what is forbidden, and begins nothing again."""
    monkeypatch.setattr(api, "REQUEST_TIMEOUT_SECONDS", 0.5)
    async with nats_with(login("right")) as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        client.options["ping_interval"] = 0.2
        twin, log = JetStreamTwin(client, "orders"), MemoryLog("orders")
        relay = Relay(log, twin)
        async with running(relay):
            relay.offer(await grow(log, 1))
            await until(lambda: relay.position == 1)
            configuration = server.folder / "nats.conf"
            allowed = configuration.read_text()
            denied = login("right", 'permissions: { subscribe: { deny: "_INBOX.>" } }')
            configuration.write_text(allowed.replace(login("right"), denied))
            os.kill(server.pid, signal.SIGHUP)
            await until(lambda: bool(client.refusal("anything")))
            await append(log, batch((counter("b"), 0, 1)))
            relay.offer([])
            await until(lambda: "lacks a permission" in str(relay.problem))
            configuration.write_text(allowed)
            os.kill(server.pid, signal.SIGHUP)
            await until(lambda: relay.position == 2 and relay.problem is None)
            await until(lambda: not client.fault)
        assert client.stats["reconnects"] == 0
        await jetstream.close(client)


async def test_subscriptions_that_are_given_back_leave_told_what_else_is_refused() -> None:
    async with nats_with(login("right")) as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        lost, refused = (
            f"'permissions violation for {what}'" for what in ('subscription to "a"', 'publish to "b"')
        )
        await client._process_err(lost)
        await client._send_ping()  # which asks for them again
        await client._process_err(refused)
        await client._send_ping()
        assert client.refusal("b")
        await client._process_err(lost)
        await client._send_ping()
        await client._send_ping()
        assert not client.fault
        await jetstream.close(client)


async def test_a_permission_that_a_delivery_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server says nothing in reply to a pull that it refuses."""
    monkeypatch.setattr(delivery, "_HEARTBEAT_SECONDS", 0.2)
    denied = 'permissions: { publish: { deny: "$JS.API.CONSUMER.MSG.NEXT.>" } }'
    async with nats_with(login("right", denied)) as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        twin = JetStreamTwin(client, "orders")
        await twin.create(1)
        async with twin.deliver(0) as opened:
            with pytest.raises(
                WrongSetting, match=r"^NATS_URL: this user lacks a permission .*msg\.next\.orders"
            ):
                await opened.next(10)
        await jetstream.close(client)


async def test_the_limits_of_an_account_are_told() -> None:
    """A connection that may not have one more subscription stays, with those that it has."""
    limits = "{ max_mem: 1MB, max_file: 1MB, max_streams: 1, max_consumers: 1 }"
    accounts = f'accounts {{ S {{ jetstream: {limits}, users: [{{ user: "shop+1", password: "right" }}] }} }}'
    async with nats_with(f"authorization {{ users: [] }}\nmax_subscriptions: 3\n{accounts}") as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        twin = JetStreamTwin(client, "orders")
        await twin.create(1)
        with pytest.raises(WrongSetting, match=r"^NATS_URL: the limits of this account .*err_code=10027"):
            await JetStreamTwin(client, "more").create(1)
        async with twin.deliver(0):
            with pytest.raises(WrongSetting, match=r"^NATS_URL: the limits of this account .*err_code=10026"):
                async with twin.deliver(0):
                    pass
        subscribed = [await client.subscribe(f"more.{number}") for number in range(4)]
        await until(lambda: "maximum subscriptions exceeded" in str(client.fault))
        assert (await twin.state()).last == 0
        assert client.stats["reconnects"] == 0
        assert client.fault and str(meant(client.fault)).startswith(
            "NATS_URL: this user, or its account, may not"
        )
        for each in subscribed:
            await each.unsubscribe()
        await jetstream.close(client)


async def test_a_limit_of_an_account_that_is_raised_is_learned_by_who_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server tells those who connect. An event in the log is copied then, and a command takes what it could not."""
    monkeypatch.setattr(client_module, "_LEARN_SECONDS", 0.0)
    limited = 'limits: {{ max_payload: {} }}, users: [{{ user: "shop+1", password: "right" }}]'
    account = f"accounts {{ S {{ jetstream: {{ max_mem: 9MB, max_file: 9MB }}, {limited.format('2KB')} }} }}"
    async with nats_with(f"authorization {{ users: [] }}\n{account}") as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        twin, log = JetStreamTwin(client, "large"), MemoryLog("large")
        relay, lineage = Relay(log, twin), Lineage(log, twin)
        large = batch((counter("b"), 0, 1))
        large = replace(large, events=[large.events[0]._replace(payload=b"x" * 3000)])
        async with running(relay, lineage):
            relay.offer(await grow(log, 2))
            await until(lambda: relay.position == 2)
            await append(log, large)
            relay.offer([])
            await until(lambda: "messages of 2048 at most; set its max_payload, or" in str(relay.problem))
            assert lineage.most_bytes == 1536
            config = server.folder / "nats.conf"
            config.write_text(config.read_text().replace("max_payload: 2KB", "max_payload: 64KB"))
            os.kill(server.pid, signal.SIGHUP)

            def learned() -> bool:
                lineage.outgrown()
                return lineage.most_bytes == 48 * 1024

            await until(learned)
            await until(lambda: relay.position == 3 and relay.problem is None)
        assert client.stats["reconnects"] == 0
        await jetstream.close(client)


async def test_who_learns_a_limit_is_stopped_at_once() -> None:
    """Up to Python 3.11, nats-py loses a cancellation that comes together with the answer, and would go on."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def stubborn() -> int:
        begun.set()
        with suppress(asyncio.CancelledError):
            await may_end.wait()
        await may_end.wait()
        return 2**20

    client = NatsClient()
    client.most_told_anew = stubborn
    learning = asyncio.create_task(client.learn_limits())
    await begun.wait()
    learning.cancel()
    await asyncio.wait([learning], timeout=60.0)
    assert learning.cancelled()
    may_end.set()


def is_refused(client: NatsClient, name: str) -> bool:
    return name in str(client.fault)


async def test_a_refusal_is_told_once_whatever_the_name_of_a_consumer() -> None:
    denied = 'permissions: { publish: { deny: "$JS.API.CONSUMER.CREATE.>" } }'
    async with nats_with(login("right", denied)) as server:
        client = await jetstream.connect(url_of(server, "right"), "tests")
        with capture_logs() as said:
            for number in range(3):
                name = f"cursor-{number:032x}"
                await client.publish(f"$JS.API.CONSUMER.CREATE.orders.{name}", b"")
                await until(partial(is_refused, client, name))
        assert [line["log_level"] for line in said if line["event"] == "nats.error"].count("warning") == 1
        await jetstream.close(client)


@pytest.mark.parametrize(
    "word", ["User Authentication Revoked", "Maximum Connections Exceeded", "Server Shutdown"]
)
async def test_a_connection_is_made_anew_whatever_the_server_says(own_nats: EmbeddedNats, word: str) -> None:
    client = await jetstream.connect(own_nats.url, "tests")
    before = client.stats["reconnects"]
    await client._process_err(f"'{word.lower()}'")
    await until(lambda: client.stats["reconnects"] > before and client.is_connected)
    await jetstream.close(client)


async def test_waiting_for_a_server_can_be_cancelled() -> None:
    connecting = asyncio.create_task(jetstream.connect("nats://127.0.0.1:1", "tests"))
    await asyncio.sleep(0.1)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
