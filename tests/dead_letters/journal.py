"""A consumer for tests of dead letters: writes down, key by key, what the events of a source log say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from twinlog import Aggregate, Events, Log, Metadata, Policies, Recorded, Schema, StreamId, View, Writer, on
from twinlog.consume import Consumer
from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import DeadLetters
from twinlog.consume.logged import Logged
from twinlog.consume.policies import PolicyConsumer
from twinlog.model.routing import NO_ROUTING_KEY
from twinlog.testing import START, MemoryLog
from twinlog.testing.internals import RandomIds, SystemClock

CONSUMER = "tests.source"
OPERATOR = Metadata("call", "rpc/ReplayDeadLetters", "", "operator")


@dataclass(frozen=True, slots=True)
class Journal:
    """What was written down, in order."""

    values: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Write:
    """Writes one more down."""

    value: int


def decide(_journal: Journal, write: Write) -> Events:
    return [Int64Value(value=write.value)]


def evolve(journal: Journal, event: Message) -> Journal:
    assert isinstance(event, Int64Value)
    return replace(journal, values=(*journal.values, event.value))


JOURNAL: Aggregate[Journal, Write] = Aggregate(
    "journal", Journal(), decide, evolve, partition_key=lambda _journal: "one"
)


class Broken(Exception):
    """The handler has a defect."""


class Source:
    """The events of a source log, and which of them a handler cannot bear."""

    def __init__(self) -> None:
        self.events: list[Recorded] = []
        self.poison: set[str] = set()
        self.tries = 0

    def add(self, *texts: str) -> Sequence[Recorded]:
        """One event for each ``key:value``; gives the new ones."""
        new = [event(len(self.events) + number, text) for number, text in enumerate(texts, 1)]
        self.events += new
        return new

    def read(self, text: str) -> tuple[str, int]:
        """The key and value in an event's text. Raises Broken on poison."""
        if text in self.poison:
            self.tries += 1
            raise Broken(f"cannot bear {text}")
        key, value = text.split(":")
        return key, int(value)

    def policies(self) -> Policies:
        def rule(event: StringValue) -> object:
            key, value = self.read(event.value)
            return on(JOURNAL, key).do(Write(value))

        return Policies(log="source", actor="tests", rules={StringValue: rule})  # type: ignore[dict-item]

    def view(self, shared: str = "") -> View[Row]:
        """The same journal as rows: one a key, or one with the key ``shared``."""

        def evolve_row(row: Row | None, event: Recorded, message: StringValue) -> Row:
            key, value = self.read(message.value)
            written = row.written if row else ""
            return Row(shared or key, f"{written} {value}".strip(), event.recorded_at)

        return View(
            "journal", lambda event, _message: shared or event.partition_key, evolve_row, events=[Message]
        )


class Row(NamedTuple):
    """One key's journal."""

    key: str
    written: str
    updated_at: datetime


def event(position: int, text: str) -> Recorded:
    """An event of the source log."""
    key = text.partition(":")[0]
    return Recorded(
        "source",
        position,
        StreamId("stream", key),
        position,
        UUID(int=position),
        "google.protobuf.StringValue",
        StringValue(value=text).SerializeToString(),
        Metadata("correlation", "rpc/Say", "", "client"),
        key,
        NO_ROUTING_KEY,
        START,
    )


def dead_lettering(consumer: Consumer, log: Log) -> DeadLettering:
    """A consumer as a service feeds it; its dead letters are in ``log``."""
    return DeadLettering(Logged(consumer), log, clock=SystemClock(), ids=RandomIds(), schema=Schema())


@asynccontextmanager
async def replica(source: Source, log: Log) -> AsyncIterator[DeadLettering]:
    """A process's policies over its own writer."""
    async with Writer(log, schema=Schema(), clock=SystemClock(), ids=RandomIds()) as writer:
        yield dead_lettering(PolicyConsumer(source.policies(), writer, log, Schema()), log)


def journal(log: MemoryLog, key: str) -> list[int]:
    """What is written down for a key."""
    return [
        Int64Value.FromString(event.payload).value for event in log.streams.get(StreamId("journal", key), ())
    ]


def positions(dead: DeadLetters) -> dict[str, list[int]]:
    """What is parked, by key."""
    return {key: [letter.position for letter in letters] for key, letters in dead.parked.items()}
