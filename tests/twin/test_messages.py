"""Messages of a stream as an audit reads them."""

from __future__ import annotations

from twinlog.audit.twins import Stored, read_messages
from twinlog.testing.internals import NatsClient


async def test_they_are_what_the_server_says_whatever_their_own_headers_say(
    nats: NatsClient, stream: str
) -> None:
    await nats.jsm().add_stream(name=stream, subjects=[f"{stream}.*"], allow_direct=True)
    forged = {"Nats-Sequence": "77", "Nats-Subject": "another", "Twinlog": "ü"}
    for number, headers in enumerate((None, forged, {"Number": "3"}, None), 1):
        await nats.jetstream().publish(f"{stream}.{number}", b"%d" % number, headers=headers)
    await nats.jsm().delete_msg(stream, 3)

    assert await read_messages(nats, stream, 2, 2) == {
        2: Stored(f"{stream}.2", b"2"),
        4: Stored(f"{stream}.4", b"4"),
    }
    assert await read_messages(nats, stream, 1, 1) == {1: Stored(f"{stream}.1", b"1")}
    assert await read_messages(nats, stream, 5, 9) == {}
