"""Mistakes that only a call shows: the unit of work is refused by name, and its neighbors are committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
import structlog.testing
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value

from tests.dead_letters.journal import JOURNAL
from tests.kernel.batches import recorded
from tests.mistakes.test_start import WRITE, service
from tests.waiting import until
from twinlog import Aggregate, Policies, Transaction, Writer, on
from twinlog.log.requests import Request
from twinlog.log.transaction import NoStreamId
from twinlog.model.errors import StreamUnreadable

COUNTED = Aggregate[int, int](
    "counted",
    0,
    lambda _state, more: [Int64Value(value=more)],
    lambda state, event: state + getattr(event, "value", 0),
    partition_key=str,
    events=[Int64Value],
)


@asynccontextmanager
async def writer() -> AsyncIterator[Writer]:
    async with service(JOURNAL) as running:
        yield running.writer


BROKEN: dict[str, tuple[Aggregate[Any, Any], str]] = {
    "evolve that gives nothing": (
        replace(COUNTED, evolve=lambda _state, _event: None),  # type: ignore[arg-type,return-value]
        r"evolve fails on int .*gives None after google\.protobuf\.Int64Value; return the state",
    ),
    "a key that is no text": (
        replace(COUNTED, partition_key=lambda state: state),  # type: ignore[arg-type,return-value]
        "partition_key fails on int .*gives 7, which is no text",
    ),
    "an event that it does not declare": (
        replace(COUNTED, decide=lambda _state, _command: [BoolValue(value=True)]),
        r"decide fails on int .*google\.protobuf\.BoolValue is not among its `events`",
    ),
    "a time of no zone": (
        replace(COUNTED, due=lambda state: datetime(2027, 1, 1) if state else None),
        "due fails .*2027-01-01 00:00:00, which has no time zone",
    ),
}


@pytest.mark.parametrize("mistake", BROKEN)
async def test_an_aggregate_that_gives_what_cannot_be_stored_fails_alone(mistake: str) -> None:
    aggregate, said = BROKEN[mistake]
    async with writer() as writes:
        sound = asyncio.create_task(writes.execute(lambda tx: tx.do(JOURNAL, "b", WRITE)))
        with pytest.raises(StreamUnreadable, match=said):
            await writes.execute(lambda tx: tx.do(aggregate, "a", 7))
        await sound


async def test_an_event_that_another_aggregate_declares_fails_the_one_that_declares_none() -> None:
    async with service(COUNTED, JOURNAL) as running:
        await running.writer.execute(lambda tx: tx.do(COUNTED, "a", 7))
        said = "decide fails on _Write .*Int64Value is among the `events` of aggregate 'counted'; give this one an"
        with pytest.raises(StreamUnreadable, match=said):
            await running.writer.execute(lambda tx: tx.do(JOURNAL, "a", WRITE))


@pytest.mark.parametrize("id", ["", 101, uuid4()])
async def test_a_command_for_an_id_that_is_none_is_refused(id: Any) -> None:
    async with writer() as writes:
        with pytest.raises(NoStreamId, match=r"int for counted has the id .*is a field unset"):
            await writes.execute(lambda tx: tx.do(COUNTED, id, 1))


async def test_work_that_is_async_is_refused() -> None:
    async def work(tx: Transaction) -> int:
        return tx.do(COUNTED, "a", 1)

    async with writer() as writes:
        with pytest.raises(TypeError, match=r"work is async.*make it a plain function"):
            await writes.execute(work)


async def test_an_answer_of_another_type_is_refused_before_it_is_stored() -> None:
    def work(tx: Transaction) -> Message:
        tx.do(COUNTED, "a", 1)
        return BoolValue()

    async with writer() as writes:
        request = Request(str(uuid4()), b"", Empty)
        with pytest.raises(
            TypeError, match=r"answers with BoolValue, and is to answer with google.protobuf.Empty"
        ):
            await writes.execute(work, request=request)
        found = await writes.execute(lambda tx: tx.state(COUNTED, "a"))
        assert found.result == 0


async def test_an_aggregate_that_is_not_declared_is_said_once() -> None:
    """0.1.0 carried such commands out, and so it is; but nobody would hear that its timers never come."""
    with structlog.testing.capture_logs() as lines:
        async with service(JOURNAL) as running:
            for number in range(3):
                await running.writer.execute(lambda tx, id=str(number): tx.do(COUNTED, id, 7))  # type: ignore[misc]
            await running.writer.execute(lambda tx: tx.do(JOURNAL, "a", WRITE))
    said = [line for line in lines if line["event"] == "writer.undeclared_aggregate"]
    assert [line["aggregate"] for line in said] == ["counted"]
    assert "add it to the aggregates of the ServiceSpec" in said[0]["problem"]


async def test_so_is_one_that_a_policy_addresses() -> None:
    with structlog.testing.capture_logs() as lines:
        async with service(JOURNAL) as running:
            rule = on(COUNTED, "all").do(7)
            running.subscribe(Policies("source", "room_svc", {Empty: lambda _event: rule}))
            await running.twin("source").publish(recorded("source", 1, message=Empty()))
            await until(lambda: "writer.undeclared_aggregate" in {line["event"] for line in lines})
