"""Logs with more kinds of events than a message names: what messages say stays true, and no consumer skips an event."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel.batches import recorded
from tests.twin.test_gaps import subject, told
from tests.waiting import until
from twinlog import Recorded
from twinlog.jetstream import arrivals
from twinlog.log.predecessors import Interest, PredecessorIndex
from twinlog.log.twin import DeliveryLost
from twinlog.model.routing import NO_ROUTING_KEY
from twinlog.testing.conformance.deliveries import take
from twinlog.testing.internals import JetStreamTwin, NatsClient

TYPES = [f"Type{number}" for number in range(20)]
OFTEN, SELDOM = "Often", "Seldom"
OTHERS = [f"Other{number}" for number in range(12)]
KINDS = [OFTEN, OTHERS[0], SELDOM, *OTHERS[1:10], OFTEN, *OTHERS[10:], SELDOM]
"""Often comes again when twelve kinds are known; after two more, that is what a message must not forget."""


@settings(deadline=None)
@given(types=st.lists(st.sampled_from(TYPES), min_size=13, max_size=60))
def test_every_event_after_the_one_that_a_message_names_is_of_a_kind_that_it_names(types: list[str]) -> None:
    index, last, reached = PredecessorIndex(), dict.fromkeys(TYPES, 0), 0
    for position, type in enumerate(types, 1):
        said = index.before(position, subject(type))
        since = int(said.split()[0])
        assert since >= reached, "what was said of the events before is taken back"
        for other in TYPES:
            assert Interest([other], "").has_all(said, max(since, last[other]))
            if last[other] > since:
                assert not Interest([other], "").has_all(said, last[other] - 1)
        last[type], reached = position, since


def test_the_first_message_says_that_there_is_nothing_before_it() -> None:
    index = PredecessorIndex()
    assert [index.before(position, subject("A")).split()[0] for position in (1, 2)] == ["0", "0"]
    assert PredecessorIndex().before(7, subject("A")) == "6", "a new publisher knows of none of them"


def test_a_kind_that_comes_again_is_the_newest() -> None:
    said = told([(kind, NO_ROUTING_KEY) for kind in KINDS], [])[-1]
    wanted = Interest([OFTEN, SELDOM], "")
    assert KINDS.index(SELDOM) + 1 == 3
    assert not wanted.has_all(said, 3), "event 13 is wanted too"
    assert wanted.has_all(said, 13)


async def test_a_delivery_with_a_filter_does_not_skip_what_the_stream_lost_under_way(
    nats: NatsClient, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "_AHEAD", 2)
    twin = JetStreamTwin(nats, stream)
    await twin.create(1)
    events = of_kinds(stream, KINDS)
    await twin.publish(events)
    wanted = [event for event in events if event.type.endswith((OFTEN, SELDOM))]
    assert [event.position for event in wanted] == [1, 3, 13, 16]
    async with twin.deliver(0, [OFTEN, SELDOM]) as delivery:
        await until(lambda: delivery.waiting == 2)
        await nats.jsm().delete_msg(stream, 13)
        assert await take(delivery, 2) == wanted[:2]
        with pytest.raises(DeliveryLost):
            await take(delivery, 1)


def of_kinds(stream: str, kinds: list[str]) -> list[Recorded]:
    events = recorded(stream, len(kinds), message=StringValue(value="x"))
    return [event._replace(type=f"tests.v1.{kind}") for event, kind in zip(events, kinds, strict=True)]
