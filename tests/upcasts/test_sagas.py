"""A saga that was under way: the command that it waits for an answer to was sent by an older version."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import DoubleValue, Int64Value, StringValue

from tests.upcasts.kinds import KINDS, SCHEMA
from twinlog import Metadata, Recorded, Saga, Step, StreamId, saga_aggregate
from twinlog.model.event import NewEvent
from twinlog.model.messages import pack
from twinlog.rpc.saga_mapping import commands_sent
from twinlog.v1.saga_pb2 import SagaStarted

SAGA = Saga(
    "ask",
    version=1,
    starts_with=StringValue,
    steps=[Step("ask", send=lambda _context: Int64Value(value=7), done=DoubleValue)],
    partition_key=lambda _event: "one",
    id=lambda _event: "one",
    sources={"olds": [StringValue, DoubleValue]},
)


def recorded(position: int, message: Message) -> Recorded:
    new = NewEvent.of(StreamId("ask_saga", "one"), position, uuid4(), message, Metadata(), "one")
    return Recorded("olds", position, *new, datetime.now(UTC))


@pytest.mark.parametrize(
    "name", [name for name, kind in KINDS.items() if kind.means(0) and kind.today is Int64Value]
)
def test_the_command_is_found_whatever_its_type_was(name: str) -> None:
    aggregate = saga_aggregate(SAGA)
    started = SagaStarted(saga="ask", version=1, trigger=pack(StringValue(value="1")))
    written = KINDS[name].written
    events = [recorded(at, each) for at, each in enumerate((started, written(7), written(3)), 1)]
    instance = aggregate.fold([started, Int64Value(value=7)])
    [sent] = commands_sent(SAGA, instance, events, SCHEMA)
    assert sent and sent.position == 2
