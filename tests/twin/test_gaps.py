"""What messages say of the events before them, and what a consumer may conclude from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel.batches import recorded
from twinlog import Recorded
from twinlog.jetstream import api
from twinlog.log.predecessors import Interest, PredecessorIndex
from twinlog.model.routing import NO_ROUTING_KEY
from twinlog.testing.conformance.damage import take
from twinlog.testing.internals import JetStreamTwin, NatsClient, to_wire

TYPES = [f"Type{number}" for number in range(8)]
TAGS = [NO_ROUTING_KEY, "RED", "GREEN"]
KINDS = st.tuples(st.sampled_from(TYPES), st.sampled_from(TAGS))


def subject(type: str, routing_key: str = NO_ROUTING_KEY) -> str:
    return f"counters.7.{type}.{routing_key}"


def told(kinds: Sequence[tuple[str, str]], publishers: Sequence[int]) -> list[str]:
    """What each event says; at each of the positions in ``publishers``, another publisher takes over."""
    history, said = PredecessorIndex(), []
    for position, kind in enumerate(kinds, 1):
        if position in publishers:
            history = PredecessorIndex()
        said.append(history.before(position, subject(*kind)))
    return said


@given(
    kinds=st.lists(KINDS, min_size=2, max_size=60),
    publishers=st.lists(st.integers(1, 60), max_size=2),
    types=st.lists(st.sampled_from(TYPES), unique=True),
    routing_key=st.sampled_from(["", "RED", "GREEN"]),
    seen=st.integers(0, 60),
)
def test_nobody_concludes_that_nothing_is_missing_where_something_is(
    kinds: list[tuple[str, str]], publishers: list[int], types: list[str], routing_key: str, seen: int
) -> None:
    said = told(kinds, publishers)
    for position in range(seen + 2, len(kinds) + 1):
        between = kinds[seen : position - 1]
        wanted = [
            kind
            for kind in between
            if (not types or kind[0] in types) and (not routing_key or kind[1] == routing_key)
        ]
        assert not (wanted and Interest(types, routing_key).has_all(said[position - 1], seen))


@given(others=st.lists(st.sampled_from(TYPES[1:]), min_size=1, max_size=200), before=st.integers(0, 3))
def test_however_many_others_lie_between_the_next_one_says_that_nothing_is_missing(
    others: list[str], before: int
) -> None:
    types = [*[TYPES[0]] * (before + 1), *others, TYPES[0]]
    said = told([(type, NO_ROUTING_KEY) for type in types], [])
    assert Interest([TYPES[0]], "").has_all(said[-1], before + 1)
    assert not Interest([TYPES[0]], "").has_all(said[-1], before)


def test_of_more_kinds_than_a_message_names_it_names_the_newest() -> None:
    kinds = [(f"Type{number}", NO_ROUTING_KEY) for number in range(40)]
    said = told([*kinds, ("Wanted", NO_ROUTING_KEY)], [])[-1]
    assert len(said.split()) == 13
    assert Interest(["Wanted"], "").has_all(said, 28)
    assert not Interest(["Wanted"], "").has_all(said, 27)


@pytest.mark.parametrize("said", ["", "nonsense", "5 ", "5 abc", "5 00000000000x7"])
def test_what_says_nothing_proves_nothing(said: str) -> None:
    assert not Interest(["Type1"], "").has_all(said, 4)


def test_what_looks_wanted_and_is_not_is_named_once() -> None:
    interest = Interest(["Wanted", "Other"], "")
    said = told([(type, NO_ROUTING_KEY) for type in ("Wanted", "Other", "Else", "Wanted")], [])[-1]
    (wanted, first), (other, second) = interest.named(said, 0)
    assert (first, second) == (1, 2)
    assert interest.named(said, 1) == [(other, 2)]
    interest.looks_alike(other)
    assert interest.named(said, 0) == [(wanted, 1)]
    assert not any(interest.named(nothing, 0) for nothing in ("", "nonsense", "0 00000000000x7"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The streams that the server was asked about."""
    streams: list[str] = []
    ask = api.stream_info

    async def asking(client: NatsClient, stream: str) -> dict[str, Any]:
        streams.append(stream)
        return await ask(client, stream)

    monkeypatch.setattr(api, "stream_info", asking)
    return streams


async def test_a_delivery_with_a_filter_asks_the_server_only_where_a_publisher_is_new(
    nats: NatsClient, stream: str, asked: list[str]
) -> None:
    old, new = JetStreamTwin(nats, stream), JetStreamTwin(nats, stream)
    await old.create(1)
    async with old.deliver(0, ["Int64Value"]) as delivery:
        asked.clear()
        for after, first, second, expected in ((0, old, old, 0), (4, old, new, 1), (8, new, new, 1)):
            (wanted,) = recorded(stream, 1, after=after + 3)
            await first.publish(texts(stream, 3, after=after))
            await second.publish([wanted])
            assert await take(delivery, 1) == [wanted]
            assert len(asked) == expected


async def test_a_message_without_headers_is_asked_about(
    nats: NatsClient, stream: str, asked: list[str]
) -> None:
    twin = JetStreamTwin(nats, stream)
    await twin.create(1)
    await twin.publish(texts(stream, 2))
    (wanted,) = recorded(stream, 1, after=2)
    async with twin.deliver(0, ["Int64Value"]) as delivery:
        asked.clear()
        await nats.publish(wanted.subject, to_wire(wanted))
        assert await take(delivery, 1) == [wanted]
    assert asked == [stream]


def test_what_messages_say_keeps_its_form() -> None:
    """Streams have messages that other versions wrote, and replicas of those read what this one writes."""
    index, kinds = PredecessorIndex(), ("OrderCreated.choreography", "OrderApproved._", "OrderCreated._")
    said = [index.before(position, f"orders.order.{kind}") for position, kind in enumerate(kinds, 1)]
    assert said == ["0", "0 a28adb1", "0 a28adb1 b988e82"]


def texts(stream: str, count: int, after: int = 0) -> list[Recorded]:
    """Events of another type."""
    return recorded(stream, count, after, StringValue(value="x"))
