"""The client's short paths: many messages in one write, a reply without a task, messages that a taker takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionReconnectingError, MaxPayloadError, NoRespondersError
from nats.errors import Error as NatsError

from tests import servers
from tests.waiting import until
from twinlog.dev import EmbeddedNats
from twinlog.jetstream import connection as jetstream
from twinlog.jetstream.client import Outgoing
from twinlog.testing.internals import NatsClient


@pytest.fixture
def subject() -> str:
    return servers.unique()


@pytest.fixture
async def heard(nats: NatsClient, nats_url: str, subject: str) -> AsyncIterator[list[Msg]]:
    """What somebody heard who answers with how it begins."""
    other, messages = await jetstream.connect(nats_url, "tests"), list[Msg]()

    async def answer(message: Msg) -> None:
        messages.append(message)
        if message.reply:
            await message.respond(b"heard " + message.data[:9])

    await other.subscribe(subject, cb=answer)
    for _ in range(2):  # the first overtakes the subscription
        await other.flush()
    yield messages
    await jetstream.close(other)


def outgoing(subject: str, *texts: str) -> list[Outgoing]:
    return [Outgoing(subject, f"Number: {number}\r\n", text.encode()) for number, text in enumerate(texts)]


async def test_all_messages_are_published_in_order_and_the_first_and_last_are_answered(
    nats: NatsClient, subject: str, heard: list[Msg]
) -> None:
    assert await nats.publish_all(outgoing(subject, "a", "", "ü"), 5) == (b"heard a", "heard ü".encode())
    assert [(message.data.decode(), message.headers) for message in heard] == [
        ("a", {"Number": "0"}),
        ("", {"Number": "1"}),
        ("ü", {"Number": "2"}),
    ]
    assert [bool(message.reply) for message in heard] == [True, False, True]


async def test_every_caller_gets_its_own_answer(nats: NatsClient, subject: str, heard: list[Msg]) -> None:
    texts = [str(number) for number in range(50)]
    answers = await asyncio.gather(*(nats.publish_all(outgoing(subject, text), 5) for text in texts))
    assert [answer.last for answer in answers] == [f"heard {text}".encode() for text in texts]


async def test_what_was_published_before_comes_before(
    nats: NatsClient, subject: str, heard: list[Msg]
) -> None:
    await nats.publish(subject, b"first")
    await nats.publish_all(outgoing(subject, "second"), 5)
    await nats.publish(subject, b"third")
    await until(lambda: len(heard) == 3)
    assert [message.data for message in heard] == [b"first", b"second", b"third"]


async def test_where_nobody_listens_it_is_said_at_once(nats: NatsClient, subject: str) -> None:
    with pytest.raises(NoRespondersError):
        await nats.publish_all(outgoing(subject, "a"), 60)


async def test_an_answer_that_does_not_come_is_waited_for_in_vain_and_forgotten(
    nats: NatsClient, subject: str
) -> None:
    silent: list[Msg] = []

    async def hear(message: Msg) -> None:
        silent.append(message)

    await nats.subscribe(subject, cb=hear)
    await nats.flush()
    with pytest.raises(TimeoutError):
        await nats.publish_all(outgoing(subject, "a"), 0.05)
    await until(lambda: bool(silent))
    await nats.publish(silent[0].reply, b"late")
    await nats.flush()
    assert not nats._answers


async def test_a_message_that_is_too_large_is_refused_and_none_is_sent(
    nats: NatsClient, subject: str, heard: list[Msg]
) -> None:
    headers = "Number: 1\r\n"
    room = nats.max_payload - len(f"NATS/1.0\r\n{headers}\r\n")
    with pytest.raises(MaxPayloadError):
        await nats.publish_all([*outgoing(subject, "a"), Outgoing(subject, headers, b"x" * (room + 1))], 5)
    await nats.publish_all([Outgoing(subject, headers, b"x" * room)], 5)
    assert [len(message.data) for message in heard] == [room]


async def test_without_a_connection_a_batch_is_refused_and_later_ones_are_not(own_nats: EmbeddedNats) -> None:
    client = await jetstream.connect(own_nats.url, "tests")
    await client.subscribe("subject", cb=_respond)
    assert await client.publish_all(outgoing("subject", "a"), 5) == (b"answer", b"answer")
    await own_nats.kill()
    await until(lambda: not client.is_connected)
    with pytest.raises(ConnectionReconnectingError):
        await client.publish_all(outgoing("subject", "b"), 5)
    await own_nats.start()
    await until(lambda: client.is_connected)
    assert await client.publish_all(outgoing("subject", "c"), 5) == (b"answer", b"answer")
    await jetstream.close(client)


async def test_a_taker_takes_what_it_wants_and_leaves_the_rest(nats: NatsClient, subject: str) -> None:
    taken: list[bytes] = []
    left: list[bytes] = []

    def take(_subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> bool:
        assert headers == b""
        if data.startswith(b"taken"):
            taken.append(data)
            return True
        return False

    async def leave(message: Msg) -> None:
        left.append(message.data)

    subscription = await nats.subscribe(subject, cb=leave)
    nats.divert(subscription, take)
    for text in (b"taken 1", b"left 1", b"taken 2"):
        await nats.publish(subject, text)
    await until(lambda: len(taken) == 2 and len(left) == 1)
    assert (taken, left) == ([b"taken 1", b"taken 2"], [b"left 1"])
    await subscription.unsubscribe()
    assert subscription._id not in nats._takers


async def test_a_taker_gets_reply_and_headers_as_they_were_sent(nats: NatsClient, subject: str) -> None:
    taken: list[tuple[bytes, ...]] = []

    def take(*message: bytes) -> bool:
        taken.append(message)
        return True

    nats.divert(await nats.subscribe(subject, cb=_respond), take)
    large = b"\r\nMSG a 1 2\r\nPING\r\n" * 20_000  # comes in many pieces, and looks like commands
    await nats.publish(subject, large, reply="back", headers={"Number": "1"})
    await until(lambda: bool(taken))
    assert taken == [(subject.encode(), b"back", large, b"NATS/1.0\r\nNumber: 1\r\n\r\n")]


async def _respond(message: Msg) -> None:
    await message.respond(b"answer")


async def test_why_a_server_closes_a_new_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that there are too many connections before nats-py has sent anything, and closes."""

    async def broken(_client: Client) -> None:
        raise ConnectionResetError("Connection lost")

    monkeypatch.setattr(Client, "_process_connect_init", broken)
    for said, raised, told in (
        (b"-ERR 'maximum connections exceeded'\r\n", NatsError, "nats: maximum connections exceeded"),
        (b"", ConnectionResetError, "Connection lost"),
    ):
        client, reader = NatsClient(), asyncio.StreamReader()
        reader.feed_data(said)
        client._transport = cast(Any, SimpleNamespace(_io_reader=reader))
        with pytest.raises(raised, match=f"^{told}$"):
            await client._process_connect_init()
