"""What only the twin in JetStream meets: servers that restart, pulls that expire, streams of other people."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from nats.aio.msg import Msg
from nats.js import api

from tests.kernel.batches import recorded
from tests.waiting import until
from twinlog import Unavailable
from twinlog.dev import EmbeddedNats
from twinlog.jetstream import api as jetstream_api
from twinlog.jetstream import connection as jetstream
from twinlog.jetstream import delivery as delivery_module
from twinlog.jetstream import pulls as pulls_module
from twinlog.jetstream.client import Outgoing
from twinlog.log.twin import DeliveryLost, TwinDamaged, WrongLastSequence
from twinlog.testing.conformance.twin import lost, take
from twinlog.testing.internals import JetStreamTwin, NatsClient, TwinState, to_wire


@pytest.fixture
def twin(nats: NatsClient, stream: str) -> JetStreamTwin:
    return JetStreamTwin(nats, stream)


async def test_a_message_that_is_lost_in_between_stops_those_behind_it(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = recorded(twin.name, 9)
    publish = nats.publish_all

    async def losing(messages: Sequence[Outgoing], timeout: float) -> bytes:
        return await publish([each for each in messages if each.data != to_wire(events[4])], timeout)

    await twin.create(1)
    monkeypatch.setattr(nats, "publish_all", losing)
    with pytest.raises(WrongLastSequence):
        await twin.publish(events)

    assert await twin.state() == TwinState(1, 4, 0)
    monkeypatch.undo()
    await twin.publish(events[4:])
    assert await twin.state() == TwinState(1, 9, 0)


@pytest.mark.parametrize(
    "config",
    [
        api.StreamConfig(subjects=["{}.>"]),
        api.StreamConfig(subjects=["{}.other"]),
    ],
    ids=["more subjects", "another subject"],
)
async def test_the_stream_of_someone_else_is_refused(
    nats: NatsClient, twin: JetStreamTwin, config: api.StreamConfig
) -> None:
    await nats.jsm().add_stream(
        config.evolve(
            name=twin.name, subjects=[subject.format(twin.name) for subject in config.subjects or ()]
        )
    )

    with pytest.raises(TwinDamaged, match=f"someone else.*nats stream rm {twin.name}"):
        await twin.state()


async def test_a_server_that_is_away_is_unavailable(
    own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream_api, "REQUEST_TIMEOUT_SECONDS", 0.5)
    client = await jetstream.connect(own_nats.url, "tests")
    twin = JetStreamTwin(client, "counters")
    await twin.create(1)
    await own_nats.kill()

    for attempt in (twin.state(), twin.message(1), twin.delete(), twin.publish(recorded("counters", 2))):
        with pytest.raises(Unavailable):
            await attempt
    await jetstream.close(client)


@pytest.mark.parametrize("types", [(), ("Int64Value",)])
async def test_a_delivery_is_lost_with_its_server(
    own_nats: EmbeddedNats, monkeypatch: pytest.MonkeyPatch, types: tuple[str, ...]
) -> None:
    monkeypatch.setattr(delivery_module, "_HEARTBEAT_SECONDS", 0.2)
    client = await jetstream.connect(own_nats.url, "tests")
    twin = JetStreamTwin(client, "counters")
    await twin.create(1)
    await twin.publish(recorded("counters", 10))
    async with twin.deliver(0, types) as delivery:
        await take(delivery, 4)
        await own_nats.kill()
        await own_nats.start()
        await lost(delivery, 4)
    async with twin.deliver(4, types) as delivery:
        assert await take(delivery, 6) == recorded("counters", 6, after=4)
    await jetstream.close(client)


async def test_pulls_that_expire_are_made_again_and_do_not_pile_up(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls_module, "_AHEAD", 8)
    monkeypatch.setattr(pulls_module, "_EXPIRES_SECONDS", 0.05)
    monkeypatch.setattr(delivery_module, "_HEARTBEAT_SECONDS", 0.02)
    await twin.create(1)
    position = 0
    async with twin.deliver(0) as delivery:
        for round in range(60):
            count = round % 7 + 1
            events = recorded(twin.name, count, after=position)
            await twin.publish(events)
            assert await take(delivery, count) == events
            position += count
            (consumer,) = await nats.jsm().consumers_info(twin.name)
            assert consumer.num_waiting is not None
            assert consumer.num_waiting <= 3


async def test_a_slow_reader_is_not_sent_more_than_it_asked_for(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulls_module, "_AHEAD", 10)
    monkeypatch.setattr(pulls_module, "_EXPIRES_SECONDS", 0.1)
    monkeypatch.setattr(delivery_module, "_HEARTBEAT_SECONDS", 0.04)
    pulls: list[Msg] = []
    await nats.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{twin.name}.*", cb=_into(pulls))
    await twin.create(1)
    async with twin.deliver(0) as delivery:
        await until(lambda: len(pulls) > 2)  # nobody reads while pulls expire
        await twin.publish(recorded(twin.name, 100))
        await until(lambda: sum(json.loads(pull.data)["batch"] for pull in pulls) >= 10)
        await nats.flush()
        assert await take(delivery, 100) == recorded(twin.name, 100)


async def test_a_heartbeat_tells_of_messages_that_did_not_come(nats: NatsClient, twin: JetStreamTwin) -> None:
    """A broken connection swallows the last message: no later one shows the gap."""
    pulls: list[Msg] = []
    await nats.subscribe(f"$JS.API.CONSUMER.MSG.NEXT.{twin.name}.*", cb=_into(pulls))
    await twin.create(1)
    async with twin.deliver(0) as delivery:
        await until(lambda: bool(pulls))
        heartbeat = {"Status": "100", "Nats-Last-Consumer": "1", "Nats-Last-Stream": "1"}
        await nats.publish(pulls[0].reply, b"", headers=heartbeat)
        with pytest.raises(DeliveryLost, match="message 1 of the delivery is missing"):
            await delivery.next(1)


def _into(messages: list[Msg]):  # type: ignore[no-untyped-def]
    async def take(message: Msg) -> None:
        messages.append(message)

    return take
