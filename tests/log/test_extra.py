"""What a domain says of an event besides its payload: kept with it, on the wire, and with all that it causes."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from google.protobuf.wrappers_pb2 import Int64Value

from tests.dead_letters.journal import event
from tests.kernel.counter import ALARM, Set
from tests.kernel.test_writer import writing
from twinlog import Log, Metadata
from twinlog.log.system import SystemClock
from twinlog.log.timers import Timers
from twinlog.log.wire import from_wire, to_wire
from twinlog.model.event import NewEvent, StreamId
from twinlog.testing import START
from twinlog.testing.internals import Batch, mirrors, open_log
from twinlog.v1.event_pb2 import RecordedEvent

EXTRA = {"tenant": "acme", "user": "7"}
PASSED = datetime(2026, 1, 1, tzinfo=UTC)
SAID = Metadata("c", "rpc/Book", "", "ann", EXTRA)
EVENT = event(1, "a:1")._replace(metadata=SAID)


def test_it_travels_with_the_event() -> None:
    assert from_wire("source.1.x.-", to_wire(EVENT)).metadata == SAID
    assert EVENT.causing("room_svc").extra == EXTRA


def test_without_it_the_bytes_are_those_of_0_1_0() -> None:
    wire = RecordedEvent.FromString(to_wire(EVENT._replace(metadata=SAID._replace(extra={}))))
    assert not wire.extra
    assert [field.name for field, _ in wire.ListFields()][-1] != "extra"


def test_a_message_that_an_older_relay_wrote_without_it_is_still_the_event() -> None:
    older = to_wire(EVENT._replace(metadata=SAID._replace(extra={})))
    assert mirrors(older, EVENT)


async def test_postgres_keeps_it_where_an_older_program_does_not_look(
    postgres_url: str, database: str
) -> None:
    async with open_log(postgres_url, database, "rooms") as log:
        stream = StreamId("room", "1")
        events = [
            NewEvent.of(stream, 1, uuid4(), Int64Value(value=1), SAID, "k"),
            NewEvent.of(stream, 2, uuid4(), Int64Value(value=2), SAID._replace(extra={}), "k"),
        ]
        await log.append(Batch(START, {stream: 0}, events))
        assert [event.metadata for event in await log.read(0, 9)] == [SAID, SAID._replace(extra={})]
        stored = await log.pool.fetch("SELECT metadata, extra FROM events ORDER BY position")
        assert all("extra" not in row["metadata"] for row in stored)
        assert [row["extra"] for row in stored] == [EXTRA, None]
        found = await log.pool.fetch("SELECT position FROM events WHERE extra->>'tenant' = $1", "acme")
        assert [row["position"] for row in found] == [1]


async def test_a_timer_has_that_and_the_correlation_of_the_event_that_set_it(log: Log) -> None:
    """Not those of a later one; and neighbors have their own, or none."""
    async with writing(log) as writer:
        for id, extra in (("a", EXTRA), ("b", {}), ("c", {"tenant": "other"})):
            metadata = Metadata(f"call {id}", extra=extra)
            await writer.execute(lambda tx, id=id: tx.do(ALARM, id, Set(PASSED)), metadata=metadata)  # type: ignore[misc]
        timers = Timers(log, writer, [ALARM], clock=SystemClock(), actor="tests")
        assert await timers.fire() == 3
        rung = {one.stream.id: one.metadata for one in await log.read(3, 9)}
    assert {id: metadata.extra for id, metadata in rung.items()} == {
        "a": EXTRA,
        "b": {},
        "c": {"tenant": "other"},
    }
    assert {id: metadata.correlation_id for id, metadata in rung.items()} == {
        id: f"call {id}" for id in "abc"
    }
    assert rung["a"].causation_id == "timer/alarm/a"
