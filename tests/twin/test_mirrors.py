"""Whether a message is the event that it should be."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from google.protobuf.message import DecodeError

from tests.kernel.batches import counter, recorded
from tests.twin.messages import newer, older
from twinlog import Metadata
from twinlog.testing.internals import from_wire, mirrors, to_wire
from twinlog.v1.event_pb2 import RecordedEvent

EVENT = recorded("counters", 1)[0]


@pytest.mark.parametrize("data", [to_wire(EVENT), older(EVENT), newer(EVENT)])
def test_the_event_is_known_whatever_version_wrote_it(data: bytes) -> None:
    assert mirrors(data, EVENT)


@pytest.mark.parametrize(
    "other",
    [
        EVENT._replace(position=2),
        EVENT._replace(event_id=UUID(int=2)),
        EVENT._replace(payload=b"\x08\x07"),
        EVENT._replace(payload=b""),
        EVENT._replace(version=2),
        EVENT._replace(stream=counter("b")),
        EVENT._replace(type="Other"),
        EVENT._replace(recorded_at=EVENT.recorded_at + timedelta(microseconds=1)),
        EVENT._replace(metadata=Metadata("correlation", "rpc/Add", "00-trace", "somebody else")),
        EVENT._replace(partition_key="other"),
    ],
)
def test_another_event_is_not(other: object) -> None:
    assert not mirrors(to_wire(other), EVENT)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", b"someone else's", b"\xff\xff", to_wire(EVENT)[:-1]])
def test_other_bytes_are_not(data: bytes) -> None:
    assert not mirrors(data, EVENT)


@pytest.mark.parametrize(
    "wire",
    [
        RecordedEvent(event_id=b"short"),
        RecordedEvent(event_id=bytes(16), recorded_at_us=2**62),
        RecordedEvent(event_id=bytes(16), recorded_at_us=-(2**62)),
    ],
)
def test_what_has_an_impossible_id_or_time_is_no_event(wire: RecordedEvent) -> None:
    with pytest.raises(DecodeError):
        from_wire("orders.1.OrderCreated.-", wire.SerializeToString())
