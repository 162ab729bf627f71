"""The dead-letter office of a process: counts what its consumers have parked, and replays or discards it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

import structlog

from twinlog.consume.dead_letters import (
    DEAD_LETTERS,
    DeadLetters,
    Discard,
    FailReplay,
    Failure,
    Letter,
    Named,
    NotFirst,
    NotParked,
)
from twinlog.log.ports import Log, ReadRequest
from twinlog.log.wire import from_wire
from twinlog.model.errors import Unavailable
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.v1.dead_letters_pb2 import EventParked

_LOOK_EVERY = 5.0
_SAY_EVERY = 60


class Box(Protocol):
    """A consumer that parks events."""

    @property
    def consumer(self) -> str:
        """Its name."""
        ...

    @property
    def source(self) -> str:
        """The log that it reads."""
        ...

    @property
    def parked(self) -> int:
        """How many events are parked, as far as this process knows."""
        ...

    async def dead_letters(self) -> DeadLetters:
        """What is parked now."""
        ...

    async def replay(self, event: Recorded, metadata: Metadata) -> None:
        """Handles a parked event and takes it out, in one transaction.

        Raises NotParked, NotFirst, Unavailable, or whatever the event fails with: then it stays parked.
        """
        ...

    async def note(self, command: FailReplay | Discard, metadata: Metadata) -> None:
        """Records what became of a letter. Raises NotParked."""
        ...


class Filed(NamedTuple):
    """A letter and where it lies."""

    box: Box
    key: str
    letter: Letter
    first: int
    """Position of the first parked event of the key."""

    @property
    def lane(self) -> tuple[str, str]:
        """Within a lane, letters keep their order."""
        return (self.box.consumer, self.key)

    @property
    def is_first(self) -> bool:
        """Whether nothing of its key is parked before it."""
        return self.letter.position == self.first

    @property
    def named(self) -> Named:
        return Named(self.box.consumer, self.box.source, self.letter.position, self.key)

    @property
    def address(self) -> str:
        """``log/position`` of the parked event."""
        return f"{self.box.source}/{self.letter.position}"


class Tried(NamedTuple):
    """What became of a replay."""

    filed: Filed
    failure: Failure | None


class DeadLetterOffice:
    """All that is parked in this process's log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.boxes: dict[str, Box] = {}

    def add(self, box: Box) -> None:
        """From now on this consumer's letters are counted and shown."""
        self.boxes[box.consumer] = box

    @property
    def problem(self) -> str | None:
        """How many events are parked, by consumer; None where none is."""
        counts = self.counts()
        return ", ".join(f"{consumer}: {count}" for consumer, count in counts.items()) or None

    def counts(self) -> Mapping[str, int]:
        """How many events each consumer has parked, those that have any."""
        return {consumer: box.parked for consumer, box in self.boxes.items() if box.parked}

    async def run(self) -> None:
        """Keeps the counts fresh, whichever replica parks; says them at the start, on change and every few minutes."""
        said, silent = None, 0
        while True:
            with suppress(Unavailable):
                for box in self.boxes.values():
                    await box.dead_letters()
            counts, silent = self.counts(), silent + 1
            if counts != (said or {}) or (counts and silent >= _SAY_EVERY):
                structlog.get_logger().warning("dead_letters", parked=sum(counts.values()), **counts)
                said, silent = counts, 0
            await asyncio.sleep(_LOOK_EVERY)

    async def filed(self, consumer: str = "") -> list[Filed]:
        """Every letter of a consumer, or of all, by consumer and position."""
        boxes = [box for name, box in sorted(self.boxes.items()) if consumer in ("", name)]
        return [
            Filed(box, key, letter, letters[0].position)
            for box in boxes
            for letter, key, letters in sorted(
                (letter, key, letters)
                for key, letters in (await box.dead_letters()).parked.items()
                for letter in letters
            )
        ]

    async def stored(self, filed: Sequence[Filed]) -> list[tuple[Recorded, EventParked]]:
        """The record of each parking, with the parked event's bytes."""
        histories = await self._log.load(
            [
                ReadRequest(
                    StreamId(DEAD_LETTERS.name, one.box.consumer),
                    one.letter.version - 1,
                    upto=one.letter.version,
                )
                for one in filed
            ]
        )
        records = [history.events[0] for history in histories]
        return [(record, EventParked.FromString(record.payload)) for record in records]

    async def replay(self, filed: Sequence[Filed], metadata: Metadata) -> AsyncIterator[Tried]:
        """Replays letters in order; one that fails stays, and so do those behind it."""
        stuck: set[tuple[str, str]] = set()
        for one in filed:
            if one.lane in stuck:
                continue
            with suppress(NotParked):  # somebody else was faster
                failure = await self._replay(one, metadata)
                if failure:
                    stuck.add(one.lane)
                yield Tried(one, failure)

    async def discard(self, filed: Sequence[Filed], reason: str, metadata: Metadata) -> int:
        """Gives letters up; gives how many that were still there."""
        discarded = 0
        for one in filed:
            with suppress(NotParked):
                await one.box.note(Discard(one.named, reason), metadata)
                discarded += 1
        return discarded

    async def _replay(self, one: Filed, metadata: Metadata) -> Failure | None:
        [(_, parked)] = await self.stored([one])
        try:
            await one.box.replay(from_wire(parked.log, parked.event), metadata)
        except (Unavailable, NotParked, NotFirst):
            raise
        except Exception as error:
            failure = Failure.of(error, 1)
            structlog.get_logger().error(
                "dead_letter.replay_failed",
                consumer=one.box.consumer,
                event_address=one.address,
                exc_info=error,
            )
            await one.box.note(FailReplay(one.named, failure), metadata)
            return failure
        return None
