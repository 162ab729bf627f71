"""What only the twin in JetStream meets: servers that restart, pulls that expire, streams of other people."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from nats.aio.msg import Msg
from nats.js import api
from structlog.testing import capture_logs

from tests.kernel.batches import append, batch, counter, grow, new_event, recorded
from tests.servers import folder
from tests.twin.relaying import mirrored, running
from tests.waiting import until
from twinlog import Unavailable
from twinlog.dev import EmbeddedNats
from twinlog.jetstream import api as jetstream_api
from twinlog.jetstream import arrivals
from twinlog.jetstream import connection as jetstream
from twinlog.jetstream import delivery as delivery_module
from twinlog.jetstream import twin as twin_module
from twinlog.jetstream.client import Answers, Outgoing
from twinlog.log.twin import DeliveryLost, TwinDamaged, TwinMissing, WrongLastSequence
from twinlog.model.errors import WrongSetting
from twinlog.testing import MemoryLog
from twinlog.testing.conformance.damage import lost, take
from twinlog.testing.internals import JetStreamTwin, NatsClient, Relay, TwinState, to_wire


@pytest.fixture
def twin(nats: NatsClient, stream: str) -> JetStreamTwin:
    return JetStreamTwin(nats, stream)


def patient(monkeypatch: pytest.MonkeyPatch, heartbeat_seconds: float) -> None:
    """Short heartbeats; a machine that is busy may miss many."""
    monkeypatch.setattr(delivery_module, "_HEARTBEAT_SECONDS", heartbeat_seconds)
    monkeypatch.setattr(delivery_module, "_MISSED_HEARTBEATS", 1_000)


def interrupt(
    monkeypatch: pytest.MonkeyPatch, nats: NatsClient, position: int, subject: str, data: bytes
) -> None:
    """Has somebody else's message come before an event that is not the first of its batch, within one write."""
    publish = nats.publish_all

    async def interrupted(messages: Sequence[Outgoing], timeout: float) -> Answers:
        fence = f"Expected-Last-Sequence: {position - 1}\r"
        middle = next((i for i, each in enumerate(messages) if fence in each.headers), 0)
        if not middle:
            return await publish(messages, timeout)
        before = await publish(messages[:middle], timeout)
        await nats.jetstream().publish(subject, data)
        return Answers(before.first, (await publish(messages[middle:], timeout)).last)

    monkeypatch.setattr(nats, "publish_all", interrupted)


async def test_a_message_that_is_lost_in_between_stops_those_behind_it(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = recorded(twin.name, 9)
    publish = nats.publish_all

    async def losing(messages: Sequence[Outgoing], timeout: float) -> Answers:
        return await publish([each for each in messages if each.data != to_wire(events[4])], timeout)

    await twin.create(1)
    monkeypatch.setattr(nats, "publish_all", losing)
    with pytest.raises(WrongLastSequence):
        await twin.publish(events)

    assert await twin.state() == TwinState(1, 4, 0)
    monkeypatch.undo()
    await twin.publish(events[4:])
    assert await twin.state() == TwinState(1, 9, 0)


async def test_messages_of_somebody_else_stand_for_no_events_of_a_batch_that_reaches_beyond_them(
    nats: NatsClient, twin: JetStreamTwin
) -> None:
    """Each message only asks for the sequence of the one before it, which anything may have."""
    events = recorded(twin.name, 9)
    await twin.create(1)
    await twin.publish(events[:3])
    for _ in range(2):
        await nats.jetstream().publish(f"{twin.name}.a.Other.-", b"somebody else's")
    with pytest.raises(TwinDamaged, match="its message 4 is not event 4 of the log"):
        await twin.publish(events[3:])
    with pytest.raises(TwinDamaged):
        await twin.state()  # until it is made again
    await twin.delete()
    await twin.create(1)
    await twin.publish(events)
    assert await twin.state() == TwinState(1, 9, 0)


async def test_a_message_of_somebody_else_in_the_middle_of_a_batch_hides_no_event_from_who_wants_it(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event whose place it has taken is refused, those behind it are not, and only the last is answered."""
    texts = recorded(twin.name, 3, 3, StringValue(value="x"))
    events = [*recorded(twin.name, 3), *texts, *recorded(twin.name, 2, 6)]
    await twin.create(1)
    async with twin.deliver(0, ["Int64Value"]) as wants, twin.deliver(0, ["StringValue"]) as others:
        await twin.publish(events[:3])
        assert await take(wants, 3) == events[:3]
        interrupt(monkeypatch, nats, 7, f"{twin.name}.a.Other.-", b"somebody else's")
        await twin.publish(events[3:])
        with pytest.raises(TwinDamaged, match="its message 7 is not event 7 of the log"):
            await take(wants, 1)
        assert await take(others, 3) == texts


@pytest.mark.parametrize("forged", [False, True])
@pytest.mark.parametrize("position", [6, 8, 11])
async def test_a_relay_says_that_a_message_of_somebody_else_lies_in_the_middle_of_a_batch(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch, position: int, forged: bool
) -> None:
    """At its next look at the stream, and until that is made again. Also one that is an event, but not of this log."""
    log = MemoryLog(twin.name)
    relay = Relay(log, twin)
    await grow(log, 3)
    async with running(relay):
        await mirrored(log, twin)
        [event] = recorded(twin.name, 1, after=position - 1)
        data = to_wire(event) if forged else b"somebody else's"
        interrupt(monkeypatch, nats, position, f"{twin.name}.a.Other.-", data)
        await grow(log, 9)
        await until(lambda: f"message {position} is not event {position} of the log" in (relay.problem or ""))
        assert f"`twinlog repair {twin.name}`" in (relay.problem or "")
        monkeypatch.undo()
        await twin.delete()
        await mirrored(log, twin)
        await until(lambda: relay.problem is None)


async def test_who_looks_at_the_same_time_hides_no_message_of_somebody_else(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As metrics and the relay do: each event in doubt is read, however many there are and whoever reads."""
    monkeypatch.setattr(twin_module, "_READ_AT_ONCE", 2)
    await twin.create(1)
    await twin.state()
    interrupt(monkeypatch, nats, 8, f"{twin.name}.a.Other.-", b"somebody else's")
    await twin.publish(recorded(twin.name, 12))
    looks = await asyncio.gather(*(twin.state() for _ in range(4)), return_exceptions=True)
    assert [str(look) for look in looks if "message 8 is not event 8" not in str(look)] == []
    with pytest.raises(TwinDamaged, match="its message 8 is not event 8 of the log"):
        await twin.state()


async def test_what_is_stored_is_weighed_right(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event is read where nobody interferes: the server counts the bytes of messages as expected."""
    await twin.create(1)
    await twin.state()
    monkeypatch.setattr(twin, "message", None)  # nothing is read
    await twin.publish(recorded(twin.name, 700))
    assert await twin.state() == TwinState(1, 700, 0)
    await twin.publish(recorded(twin.name, 1, after=700))
    assert await twin.state() == TwinState(1, 701, 0)
    await twin.trim(300)
    await twin.publish(recorded(twin.name, 3, after=701))
    assert await twin.state() == TwinState(301, 704, 0)
    await twin.publish(recorded(twin.name, 3, after=704))
    assert await twin.state() == TwinState(301, 707, 0)


async def test_what_a_rival_has_stored_stands_for_the_events_of_a_batch(
    nats: NatsClient, twin: JetStreamTwin
) -> None:
    events = recorded(twin.name, 9)
    await twin.create(1)
    await twin.publish(events[:3])
    await JetStreamTwin(nats, twin.name).publish(events[3:6])
    await twin.publish(events[3:])
    assert await twin.state() == TwinState(1, 9, 0)


async def test_the_reason_is_that_of_the_first_event_that_is_refused(
    nats: NatsClient, twin: JetStreamTwin
) -> None:
    """Only the last one of a batch is answered, and that one only hears that something before it is missing."""
    await twin.create(1)
    config = (await jetstream_api.stream_info(nats, twin.name))["config"]
    await jetstream_api.update_stream(nats, twin.name, {**config, "max_msgs": 1, "discard": "new"})
    await twin.publish(recorded(twin.name, 1))
    with pytest.raises(
        Unavailable, match=r"^JetStream refused event 2: maximum messages exceeded; `nats stream edit"
    ):
        await twin.publish(recorded(twin.name, 9, after=1))


async def test_a_stream_on_fewer_servers_than_the_setting_says_is_spread_and_none_is_drawn_together(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    update, look = jetstream_api.update_stream, jetstream_api.stream_info

    async def noting(client: NatsClient, stream: str, config: Mapping[str, Any]) -> None:
        asked.append(config["num_replicas"])
        await update(client, stream, config)

    async def spread(client: NatsClient, stream: str) -> dict[str, Any]:
        info = await look(client, stream)
        info["config"]["num_replicas"] = 5
        return info

    monkeypatch.setattr(jetstream_api, "update_stream", noting)
    await twin.create(1)
    wanted = JetStreamTwin(nats, twin.name, replicas=3)
    await wanted.state()
    with capture_logs() as said:
        await wanted.claim()
    [line] = said
    assert (asked[-1], line["event"]) == (3, "twin.not_replicated")
    assert line["why"].startswith("STREAM_REPLICAS: a single server keeps each stream once")

    monkeypatch.setattr(jetstream_api, "stream_info", spread)
    await wanted.state()
    asked.clear()
    await wanted.claim()
    assert asked == []


async def test_full_blocks_are_compressed_where_the_server_can_trim_them(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {
        "2.12.11": "none",
        "2.12.12": "s2",
        "2.13.9": "none",
        "2.14.2": "none",
        "2.14.3": "s2",
        "2.15.0": "s2",
    }
    found = {}
    for version in versions:
        server = type(nats.connected_server_version)(version)
        monkeypatch.setattr(type(nats), "connected_server_version", server)
        await twin.create(1)
        found[version] = (await jetstream_api.stream_info(nats, twin.name))["config"]["compression"]
        await twin.delete()
    assert found == versions


async def test_what_a_server_turns_out_to_lack_is_told_whoever_asks(
    nats: NatsClient, twin: JetStreamTwin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an operator takes JetStream from the account while all is running."""
    refusal = {"code": 503, "err_code": 10039, "description": "JetStream not enabled for account"}
    answer = Msg(nats, data=json.dumps({"error": refusal}).encode())

    async def refuse(*_arguments: object, **_named: object) -> Any:
        return answer

    async def refuse_all(*_arguments: object) -> Answers:
        return Answers(answer.data, answer.data)

    monkeypatch.setattr(nats, "request", refuse)
    monkeypatch.setattr(nats, "publish_all", refuse_all)
    for ask in (
        twin.state(),
        twin.publish(recorded(twin.name, 1)),
        twin.message(1),
        twin.ahead(1),
        twin.next_ahead(1),
        jetstream_api.update_stream(nats, twin.name, {}),
    ):
        with pytest.raises(WrongSetting, match=r"^NATS_URL: this nats-server runs without JetStream"):
            await ask


async def test_a_server_that_comes_back_without_jetstream_is_told(own_nats: EmbeddedNats) -> None:
    client = await jetstream.connect(own_nats.url, "tests")
    twin = JetStreamTwin(client, "orders")
    await twin.create(1)
    await own_nats.stop()
    own_nats.extra = "jetstream: false"
    await own_nats.start()
    await until(lambda: client.stats["reconnects"] > 0 and client.is_connected)
    for ask in (
        twin.state(),
        twin.message(1),
        twin.create(1),
        jetstream_api.update_stream(client, "orders", {}),
    ):
        with pytest.raises(WrongSetting, match=r"^NATS_URL: this nats-server runs without JetStream"):
            await ask
    await jetstream.close(client)


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
    client = await jetstream.connect(own_nats.url, "tests")
    await JetStreamTwin(client, "counters").create(1)
    await own_nats.kill()

    monkeypatch.setattr(jetstream_api, "REQUEST_TIMEOUT_SECONDS", 0.5)
    twin = JetStreamTwin(client, "counters")
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
    monkeypatch.setattr(arrivals, "_AHEAD", 8)
    monkeypatch.setattr(arrivals, "_EXPIRES_SECONDS", 0.05)
    patient(monkeypatch, heartbeat_seconds=0.02)
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
    monkeypatch.setattr(arrivals, "_AHEAD", 10)
    monkeypatch.setattr(arrivals, "_EXPIRES_SECONDS", 0.1)
    patient(monkeypatch, heartbeat_seconds=0.04)
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


async def test_what_is_stored_under_another_subject_is_put_right(
    nats: NatsClient, twin: JetStreamTwin
) -> None:
    """A transform that an operator gave the stream: those who want the events by type would never get them."""
    log = MemoryLog(twin.name)
    await grow(log, 3)
    relay = Relay(log, JetStreamTwin(nats, twin.name))
    async with running(relay):
        await mirrored(log, twin)
        config = (await nats.jsm().stream_info(twin.name)).config
        config.subject_transform = api.SubjectTransform(src=f"{twin.name}.>", dest="elsewhere.>")
        await nats.jsm().update_stream(config)
        relay.offer(await grow(log, 3))
        await until(lambda: is_found(nats, f"{twin.name}.*.Int64Value.*", 6))
        await mirrored(log, twin)
        assert relay.problem is None


@pytest.mark.parametrize("retention", [api.RetentionPolicy.WORK_QUEUE, api.RetentionPolicy.INTEREST])
async def test_a_stream_that_keeps_nothing_for_who_only_reads_is_made_anew(
    nats: NatsClient, twin: JetStreamTwin, retention: api.RetentionPolicy
) -> None:
    await nats.jsm().add_stream(name=twin.name, subjects=[f"{twin.name}.*.*.*"], retention=retention)
    log = MemoryLog(twin.name)
    await grow(log, 3)
    async with running(Relay(log, JetStreamTwin(nats, twin.name))):
        await mirrored(log, twin)
        async with twin.deliver(0) as delivery:
            assert [event.position for event in await delivery.next(10)] == [1, 2, 3]


async def test_a_stream_that_takes_the_subjects_of_a_log_is_told_with_the_way_out(
    nats: NatsClient, twin: JetStreamTwin
) -> None:
    await nats.jsm().add_stream(name=f"{twin.name}-others", subjects=[f"{twin.name}.>"])
    try:
        with pytest.raises(
            WrongSetting, match=r"^NATS_URL: another stream of this account takes the subjects"
        ):
            await twin.create(1)
    finally:
        await nats.jsm().delete_stream(f"{twin.name}-others")


async def is_found(nats: NatsClient, subject: str, sequence: int) -> bool:
    """Whether a stream has a message of this subject at or behind a sequence."""
    try:
        return (
            await jetstream_api.next_message(nats, subject.partition(".")[0], sequence, subject) is not None
        )
    except (Unavailable, TwinMissing):
        return False


async def ends_at(twin: JetStreamTwin, position: int) -> bool:
    """Whether that is the last message."""
    try:
        return (await twin.state()).last == position
    except Unavailable:
        return False


async def test_an_event_that_is_larger_than_the_server_takes_is_named_and_holds_up_those_behind_it_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes on by itself where the server is told to take more."""
    # The server breaks the connection off, and what was asked then is answered by nobody.
    monkeypatch.setattr(jetstream_api, "REQUEST_TIMEOUT_SECONDS", 1.0)
    with folder() as path:
        async with EmbeddedNats(path / "nats", extra="max_payload: 3000") as server:
            client = await jetstream.connect(server.url, "tests")
            log, twin = MemoryLog("large"), JetStreamTwin(client, "large")
            for version, size in enumerate((1, 1, 1, 5000, 1, 1), 1):
                event = new_event(counter(), version, StringValue(value="x" * size))
                await append(log, replace(batch((counter(), version - 1, 1)), events=[event]))
            assert twin.most_bytes == 2250, (
                "what a writer takes, so that this happens where the limit was lowered only"
            )
            relay = Relay(log, twin)
            async with running(relay):
                await until(lambda: relay.problem is not None and "event large/4 has 5" in relay.problem)
                assert (
                    "takes messages of 3000 at most; set its max_payload, or that of this account, higher"
                    in str(relay.problem)
                )
                await until(lambda: ends_at(twin, 3))
                config = path / "nats" / "nats.conf"
                config.write_text(config.read_text().replace("max_payload: 3000", "max_payload: 1MB"))
                os.kill(server.pid, signal.SIGHUP)
                await mirrored(log, twin)
                await until(lambda: relay.problem is None)
            await jetstream.close(client)
