"""What operators do with the dead letters of a process's consumers: count, list, replay, discard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import structlog

from twinlog.consume.dead_lettering import NOT_THE_EVENTS_FAULT, DeadLettering
from twinlog.consume.dead_letters import (
    DEAD_LETTERS,
    DeadLetter,
    DeadLetterId,
    Discard,
    FailReplay,
    Failure,
    NotFirst,
    NotParked,
)
from twinlog.log.ports import Log, ReadRequest
from twinlog.log.wire import from_wire
from twinlog.model.errors import Unavailable
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.v1.dead_letters_pb2 import EventParked

_LOOK_EVERY_SECONDS = 5.0
_SAY_EVERY_LOOKS = 60


class Listed(NamedTuple):
    """A dead letter and whose it is."""

    consumer: DeadLettering
    key: str
    letter: DeadLetter
    first: int
    """Position of the key's first dead letter."""

    @property
    def lane(self) -> tuple[str, str]:
        """Within a lane, dead letters keep their order."""
        return (self.consumer.name, self.key)

    @property
    def is_first(self) -> bool:
        """Whether it waits behind no other of its key."""
        return self.letter.position == self.first

    @property
    def id(self) -> DeadLetterId:
        return DeadLetterId(self.consumer.name, self.consumer.source, self.letter.position, self.key)

    @property
    def address(self) -> str:
        """``log/position`` of the event."""
        return f"{self.consumer.source}/{self.letter.position}"


class Tried(NamedTuple):
    """What became of a replay."""

    listed: Listed
    failure: Failure | None


class DeadLetterOperations:
    """All dead letters in one service's log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.consumers: dict[str, DeadLettering] = {}

    def add(self, consumer: DeadLettering) -> None:
        """From now on this consumer's dead letters are counted and shown."""
        self.consumers[consumer.name] = consumer

    @property
    def problem(self) -> str | None:
        """How many dead letters there are, by consumer; None where there are none."""
        return ", ".join(f"{consumer}: {count}" for consumer, count in self.counts().items()) or None

    def counts(self) -> Mapping[str, int]:
        """How many dead letters each consumer has, those that have any."""
        return {name: consumer.count for name, consumer in self.consumers.items() if consumer.count}

    async def run(self) -> None:
        """Keeps the counts fresh, whichever replica changes them; says them on change and every five minutes."""
        said, silent = None, 0
        while True:
            with suppress(Unavailable):
                for consumer in self.consumers.values():
                    await consumer.dead_letters()
            counts, silent = self.counts(), silent + 1
            if counts != (said or {}) or (counts and silent >= _SAY_EVERY_LOOKS):
                structlog.get_logger().warning("dead_letters", parked=sum(counts.values()), **counts)
                said, silent = counts, 0
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def listed(self, consumer: str = "") -> list[Listed]:
        """Every dead letter of a consumer, or of all, by consumer and position."""
        chosen = [each for name, each in sorted(self.consumers.items()) if consumer in ("", name)]
        return [
            Listed(each, key, letter, letters[0].position)
            for each in chosen
            for letter, key, letters in sorted(
                (letter, key, letters)
                for key, letters in (await each.dead_letters()).parked.items()
                for letter in letters
            )
        ]

    async def stored(self, listed: Sequence[Listed]) -> Sequence[tuple[Recorded, EventParked]]:
        """The record of each dead letter, with the event's bytes."""
        slices = await self._log.load(
            [
                ReadRequest(
                    StreamId(DEAD_LETTERS.name, one.consumer.name),
                    one.letter.version - 1,
                    upto=one.letter.version,
                )
                for one in listed
            ]
        )
        records = [slice.events[0] for slice in slices]
        return [(record, EventParked.FromString(record.payload)) for record in records]

    async def replay(self, listed: Sequence[Listed], metadata: Metadata) -> AsyncIterator[Tried]:
        """Replays dead letters in order; one that fails stays, and so do those behind it."""
        stuck: set[tuple[str, str]] = set()
        for one in listed:
            if one.lane in stuck:
                continue
            with suppress(NotParked):  # somebody else was faster
                failure = await self._replay(one, metadata)
                if failure:
                    stuck.add(one.lane)
                yield Tried(one, failure)

    async def discard(self, listed: Sequence[Listed], reason: str, metadata: Metadata) -> int:
        """Gives dead letters up; gives how many were still there."""
        discarded = 0
        for one in listed:
            with suppress(NotParked):
                await one.consumer.note(Discard(one.id, reason), metadata)
                discarded += 1
        return discarded

    async def _replay(self, one: Listed, metadata: Metadata) -> Failure | None:
        [(_, parked)] = await self.stored([one])
        try:
            await one.consumer.replay(from_wire(parked.log, parked.event), metadata)
        except (*NOT_THE_EVENTS_FAULT, NotParked, NotFirst):
            raise
        except Exception as error:
            failure = Failure.of(error, 1)
            await one.consumer.note(FailReplay(one.id, failure), metadata, error)
            return failure
        return None
