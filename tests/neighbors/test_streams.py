"""Streams carry the identity of their installation, and who reads or fills one compares."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from nats.js import api as nats_api
from structlog.testing import capture_logs

from tests import servers
from tests.kernel.batches import grow
from tests.twin.relaying import mirrored, running
from tests.waiting import in_service, until
from twinlog import Unavailable
from twinlog.jetstream import api
from twinlog.jetstream.api import labels, metadata_of
from twinlog.log.installation import ForeignStream, Identity
from twinlog.testing import MemoryLog
from twinlog.testing.conformance.deliveries import take
from twinlog.testing.internals import JetStreamTwin, NatsClient, Relay

OURS, THEIRS = Identity("ours", uuid4()), Identity("theirs", uuid4())


async def label(nats: NatsClient, stream: str) -> dict[str, str]:
    """What a stream says of whose it is."""
    metadata = metadata_of(await api.stream_info(nats, stream))
    return {key: value for key, value in metadata.items() if key.startswith("twinlog.")}


async def test_a_new_stream_says_whose_it_is(nats: NatsClient, stream: str) -> None:
    await JetStreamTwin(nats, stream, identity=OURS).create(1)

    assert (
        await label(nats, stream)
        == labels(OURS)
        == {
            "twinlog.installation": "ours",
            "twinlog.log": str(OURS.log_id),
        }
    )


async def test_a_relay_leaves_the_stream_of_another_installation_alone(nats: NatsClient, stream: str) -> None:
    theirs, ours = MemoryLog(stream), MemoryLog(stream)
    await grow(theirs, 5)
    await grow(ours, 9)
    async with running(Relay(theirs, JetStreamTwin(nats, stream, identity=THEIRS))):
        await mirrored(theirs, JetStreamTwin(nats, stream))
    before = await api.stream_info(nats, stream)

    relay = Relay(ours, JetStreamTwin(nats, stream, identity=OURS))
    async with running(relay):
        await until(lambda: relay.problem is not None)
        problem = str(relay.problem)
    assert problem.startswith(
        f"Stream {stream} belongs to installation theirs, this service to ours; set TWINLOG_NAMESPACE"
    )
    assert "\n" not in problem
    after = await api.stream_info(nats, stream)
    assert (after["created"], after["config"], after["state"]["last_seq"]) == (
        before["created"],
        before["config"],
        5,
    )
    await mirrored(theirs, JetStreamTwin(nats, stream))


@pytest.mark.parametrize("empty", [True, False])
async def test_a_consumer_gets_nothing_from_the_stream_of_another_installation(
    nats: NatsClient, stream: str, empty: bool
) -> None:
    theirs = JetStreamTwin(nats, stream, identity=THEIRS)
    await theirs.create(1)
    if not empty:
        await theirs.publish(await grow(MemoryLog(stream), 5))
    with pytest.raises(ForeignStream, match=f"{stream} belongs to installation theirs, this service to ours"):
        async with JetStreamTwin(nats, stream, identity=OURS).deliver(0):
            pass


async def test_a_stream_that_becomes_anothers_delivers_nothing_of_theirs(
    nats: NatsClient, stream: str
) -> None:
    mine = JetStreamTwin(nats, stream, identity=OURS)
    await mine.create(1)
    events = await grow(MemoryLog(stream), 5)
    async with mine.deliver(0) as delivery:
        await mine.publish(events[:2])
        assert [event.position for event in await take(delivery, 2)] == [1, 2]
        await mine.delete()
        theirs = JetStreamTwin(nats, stream, identity=THEIRS)
        await in_service(theirs.create, 1)
        await theirs.publish(events)
        coming = asyncio.ensure_future(delivery.next(10))
        try:
            done, _ = await asyncio.wait([coming], timeout=0.5)
            assert not [task for task in done if task.exception() is None]
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
    with pytest.raises(ForeignStream):
        async with mine.deliver(2):
            pass


async def test_a_stream_of_before_is_read_and_labelled_once_it_is_known_to_mirror_the_log(
    nats: NatsClient, stream: str
) -> None:
    log = MemoryLog(stream)
    await grow(log, 5)
    async with running(Relay(log, JetStreamTwin(nats, stream))):
        await mirrored(log, JetStreamTwin(nats, stream))
    assert await label(nats, stream) == {}
    created = (await api.stream_info(nats, stream))["created"]

    async with JetStreamTwin(nats, stream, identity=THEIRS).deliver(0) as delivery:
        assert len(await take(delivery, 5)) == 5
    async with running(Relay(log, JetStreamTwin(nats, stream, identity=OURS))):
        await until(lambda: labelled(nats, stream))
        await grow(log, 3)
        await mirrored(log, JetStreamTwin(nats, stream))
    assert (await api.stream_info(nats, stream))["created"] == created


async def labelled(nats: NatsClient, stream: str) -> bool:
    return await label(nats, stream) == labels(OURS)


async def test_a_stream_of_before_that_holds_other_events_is_not_labelled(
    nats: NatsClient, stream: str
) -> None:
    other, log = MemoryLog(stream), MemoryLog(stream)
    await grow(other, 5)
    await grow(log, 5)
    async with running(Relay(other, JetStreamTwin(nats, stream))):
        await mirrored(other, JetStreamTwin(nats, stream))
    relay = Relay(log, JetStreamTwin(nats, stream, identity=OURS))
    async with running(relay):
        await until(lambda: relay.problem is not None)
    assert await label(nats, stream) == {}


async def test_the_settings_of_a_stream_outlive_its_labelling(nats: NatsClient, stream: str) -> None:
    twin = JetStreamTwin(nats, stream, identity=OURS)
    config = nats_api.StreamConfig(
        name=stream,
        subjects=[f"{stream}.*.*.*"],
        max_msgs=1_000,
        no_ack=True,
        metadata={"team": "orders"},
    )
    await nats.jsm().add_stream(config)
    await twin.state()
    await twin.claim()

    after = (await api.stream_info(nats, stream))["config"]
    assert after["max_msgs"] == 1_000
    assert after["compression"] == "s2"  # it was of an earlier release
    assert not after.get("no_ack")  # but for this one: what is published would never be answered
    assert after["metadata"].items() >= {"team": "orders", **labels(OURS)}.items()


async def test_the_subjects_of_a_log_s_own_stream_are_put_back(nats: NatsClient, stream: str) -> None:
    """While it runs, once nothing can be stored any more; what more it takes, when somebody next compares."""
    log, twin = MemoryLog(stream), JetStreamTwin(nats, stream, identity=OURS)
    await grow(log, 5)
    async with running(Relay(log, twin)):
        await mirrored(log, twin)
        info = await api.stream_info(nats, stream)
        await api.update_stream(nats, stream, {**info["config"], "subjects": [f"{stream}.else.>"]})
        await grow(log, 3)
        await mirrored(log, twin)
    more = [*info["config"]["subjects"], f"{stream}.more"]
    await api.update_stream(nats, stream, {**info["config"], "subjects": more})
    async with running(Relay(log, twin)):
        await grow(log, 3)
        await until(lambda: has_its_subjects(nats, stream))
        await mirrored(log, twin)
    assert (await api.stream_info(nats, stream))["created"] == info["created"]


async def has_its_subjects(nats: NatsClient, stream: str) -> bool:
    subjects = (await api.stream_info(nats, stream))["config"]["subjects"]
    return bool(subjects == [f"{stream}.*.*.*"])


async def test_a_stream_that_may_not_be_labelled_is_filled_all_the_same(
    nats: NatsClient, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_arguments: object) -> None:
        raise Unavailable("not permitted")

    monkeypatch.setattr(api, "update_stream", refuse)
    log = MemoryLog(stream)
    await JetStreamTwin(nats, stream).create(1)
    with capture_logs() as said:
        async with running(Relay(log, JetStreamTwin(nats, stream, identity=OURS))):
            await grow(log, 5)
            await mirrored(log, JetStreamTwin(nats, stream))
    assert [line["event"] for line in said] == ["twin.not_labelled"]


async def test_a_namespace_prefixes_the_stream_and_its_subjects_but_not_the_log(nats: NatsClient) -> None:
    log = MemoryLog(servers.unique())
    events = await grow(log, 5)
    plain, staging = JetStreamTwin(nats, log.name), JetStreamTwin(nats, log.name, namespace="staging")
    try:
        async with running(Relay(log, staging)):
            await mirrored(log, staging)
        assert staging.name == f"staging_{log.name}"
        info = await api.stream_info(nats, staging.name)
        assert info["config"]["subjects"] == [f"staging_{log.name}.*.*.*"]
        assert await nats.jsm().get_last_msg(staging.name, f"staging_{events[-1].subject}")
        type = events[0].type.rpartition(".")[2]
        for types, key in (((), ""), ([type], ""), ([type], events[0].routing_key), ((), "-")):
            async with staging.deliver(0, types, key) as delivery:
                assert await take(delivery, len(events)) == list(events)
        with pytest.raises(Exception, match="does not exist"):
            await plain.state()
    finally:
        await staging.delete()


async def test_notifications_stay_in_their_namespace(nats: NatsClient, stream: str) -> None:
    plain, staging = JetStreamTwin(nats, stream), JetStreamTwin(nats, stream, namespace="staging")
    waits = [asyncio.create_task(twin.notified(60)) for twin in (plain, staging)]
    await until(lambda: len(nats._subs) >= 2)
    await nats.flush()
    await staging.notify()
    try:
        async with asyncio.timeout(60):
            await waits[1]
        assert not waits[0].done()
    finally:
        waits[0].cancel()
        await asyncio.gather(*waits, return_exceptions=True)
