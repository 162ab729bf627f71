"""Mistakes that only a call shows: the unit of work is refused by name, and its neighbors are committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
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
from twinlog import Aggregate, ConfigurationError, Metadata, Policies, Transaction, Writer, on
from twinlog.log.texts import Unstorable
from twinlog.log.transaction import NoStreamId
from twinlog.log.units import Request
from twinlog.model.errors import StreamUnreadable
from twinlog.rpc import Checks, Commands
from twinlog.testing import MemoryLog

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


def at_once(*_arguments: Any) -> Any:
    """What forgets to give anything."""


unready: Any = at_once

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
    "no list": (
        replace(COUNTED, decide=unready),
        "decide fails on int .*gives None; give its events in a list",
    ),
    "one event": (
        replace(COUNTED, decide=lambda _state, more: Int64Value(value=more)),  # type: ignore[arg-type,return-value]
        r"decide fails on int .*gives a message google\.protobuf\.Int64Value; put it into a list",
    ),
    "a command among its events": (
        replace(COUNTED, decide=lambda _state, more: [more]),  # type: ignore[list-item]
        "decide fails on int .*among its events is 7; give messages",
    ),
    "a number for a time": (
        replace(COUNTED, due=lambda state: 5.0 if state else None),  # type: ignore[arg-type,return-value]
        r"due fails .*5\.0, which has no time zone; give a datetime",
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


ODD: Any = {"tenant": 7}


@dataclass(frozen=True)
class Listed:
    """Frozen, and yet its list can be changed in place."""

    items: list[int] = field(default_factory=list)


def appended(state: Listed, event: Any) -> Listed:
    state.items.append(event.value)
    return state


def changed(state: Listed, event: Any) -> Listed:
    return replace(state, items=[*state.items, event.value])


LISTED: Aggregate[Listed, int] = Aggregate(
    "listed", Listed(), lambda _state, more: [Int64Value(value=more)], appended, lambda _state: "one"
)


async def test_an_initial_state_that_is_changed_in_place_is_refused_in_the_call() -> None:
    sound = replace(LISTED, initial=Listed(), evolve=changed)
    async with service(LISTED) as running:
        with pytest.raises(StreamUnreadable, match="changes in place the initial state"):
            await running.writer.execute(lambda tx: tx.do(LISTED, "a", 7))
    async with service(sound) as running:
        for id in ("a", "b"):
            state = (await running.writer.execute(lambda tx, id=id: tx.do(sound, id, 7))).result  # type: ignore[misc]
            assert state.items == [7]


async def test_an_event_is_kept_as_it_was_decided_whatever_its_fold_does_to_it() -> None:
    def emptied(state: int, event: Any) -> int:
        more, event.value = event.value, 0
        return state + int(more)

    log, counted = MemoryLog("rooms"), replace(COUNTED, evolve=emptied)
    async with service(counted, log=log) as running:
        await running.writer.execute(lambda tx: tx.do(counted, "a", 7))
    assert Int64Value.FromString(log.events[0].payload).value == 7


async def test_another_aggregate_of_a_declared_name_is_said_once() -> None:
    other = replace(COUNTED, evolve=lambda state, event: state + 100 * getattr(event, "value", 0))
    equal = replace(COUNTED)
    with structlog.testing.capture_logs() as lines:
        async with service(COUNTED) as running:
            for number, of in enumerate([COUNTED, equal, other, other]):
                await running.writer.execute(lambda tx, id=str(number), of=of: tx.do(of, id, 7))  # type: ignore[misc]
    said = [line["problem"] for line in lines if line["event"] == "writer.undeclared_aggregate"]
    assert len(said) == 1
    assert "another aggregate than the one that the service declares under this name" in said[0]


@pytest.mark.parametrize(
    "metadata",
    [
        "me",
        Metadata()._replace(actor=5),  # type: ignore[arg-type]
        Metadata()._replace(extra=ODD),
        Metadata()._replace(extra=["x"]),  # type: ignore[arg-type]
    ],
)
async def test_metadata_that_nobody_could_read_is_refused(metadata: Any) -> None:
    log = MemoryLog("rooms")
    async with service(COUNTED, log=log) as running:
        with pytest.raises(Unstorable, match="no Metadata of texts"):
            await running.writer.execute(lambda tx: tx.do(COUNTED, "a", 7), metadata=metadata)
        with pytest.raises(Unstorable, match="no Metadata of texts"):
            await running.writer.execute(lambda tx: tx.do(COUNTED, "a", 7, metadata))
    assert not log.events


@pytest.mark.parametrize("id", [None, 7, uuid4()])
async def test_an_id_that_is_no_text_is_none_to_read_by(id: Any) -> None:
    async with service(COUNTED) as running:
        with pytest.raises(Unstorable, match=r"the id of counted is .*; give a str"):
            await running.writer.execute(lambda tx: tx.state(COUNTED, id))


@pytest.mark.parametrize("answer", [None, Empty()])
async def test_another_answer_than_promised_is_refused_before_anything_is_appended(answer: Any) -> None:
    class Call:
        def invocation_metadata(self) -> Sequence[tuple[str, str]]:
            return ()

        def time_remaining(self) -> None:
            return None

    def work(tx: Transaction) -> Any:
        tx.do(COUNTED, "a", 7)
        return answer

    log = MemoryLog("rooms")
    async with service(COUNTED, log=log) as running:
        commands = Commands(running.log, running.writer)
        with pytest.raises(TypeError, match="is to answer with google"):
            await commands.execute(Empty(), Call(), Checks(), work, BoolValue)
    assert not log.events


async def test_what_is_subscribed_to_a_stopped_service_or_with_odd_seconds_is_refused() -> None:
    rule = on(COUNTED, "all").do(7)
    table = Policies("source", "room_svc", {Empty: lambda _event: rule})
    async with service(COUNTED) as running:
        for seconds in (-1.0, "1", float("nan"), float("inf")):
            with pytest.raises(ConfigurationError, match="give seconds, from 0 to 3600"):
                running.subscribe(table, linger_seconds=seconds)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="inside its open_service block"):
        running.subscribe(table)
