"""What operators do with the dead letters of a process's consumers: count, list, replay, discard.

What could not be read is replayed without them, once it can be: by a version that knows the type, or because somebody
put the stream right.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

import structlog
from google.protobuf.message import DecodeError

from twinlog.consume.dead_lettering import NOT_MENDED_BY_TRYING, NOT_THE_EVENTS_FAULT, DeadLettering
from twinlog.consume.dead_letters import (
    DEAD_LETTERS,
    DeadLetters,
    Discard,
    FailReplay,
    Failure,
    NotFirst,
    NotParked,
    without_text,
)
from twinlog.consume.listed import Listed, ParkedTimes
from twinlog.log.ports import Log, ReadRequest
from twinlog.log.wire import from_wire
from twinlog.model.errors import StreamUnreadable, Unavailable, text_of
from twinlog.model.event import Metadata, Recorded, StreamId
from twinlog.model.personal import holds_personal
from twinlog.v1.dead_letters_pb2 import EventParked, EventReplayFailed

_LOOK_EVERY_SECONDS = 5.0
_SAY_EVERY_LOOKS = 60
_REPLAY_EVERY_LOOKS = 6
_REPLAYED_KEYS = 20
"""How many keys of a consumer are tried at once, where none of them goes through."""
_LOOKED_BACK = 2_000
"""How many of a consumer's events about dead letters are looked through for a traceback."""
_WHAT_TO_DO = (
    "twinlog dead-letters list tells why; what this version cannot read is replayed by itself once one can; "
    "replay the others once that is mended, or discard them"
)
_REPLAYED = {"", *(error.__name__ for error in NOT_MENDED_BY_TRYING)}
"""The errors of those that are replayed by themselves; none: it only waited, and what it waited for is gone."""


class Tried(NamedTuple):
    """What became of a replay."""

    listed: Listed
    failure: Failure | None


class DeadLetterOperations:
    """All dead letters in one service's log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.consumers: dict[str, DeadLettering] = {}
        self._faults: dict[str, str] = {}
        """By consumer: why its dead letters cannot be counted."""
        self._until_replay: Counter[str] = Counter()
        """By consumer: the looks until what it could not read is tried again."""
        self._last_key: defaultdict[str, str] = defaultdict(str)
        """By consumer: the key that was tried last."""
        self._times = ParkedTimes(log)

    def add(self, consumer: DeadLettering) -> None:
        """From now on this consumer's dead letters are counted and shown."""
        self.consumers[consumer.name] = consumer

    @property
    def problem(self) -> str | None:
        """How many dead letters there are, by consumer, and what to do; or why that is unknown, None where there are
        none."""
        counted = [f"{consumer} has set {_events(count)} aside" for consumer, count in self.counts().items()]
        said = [f"{', '.join(counted)}: {_WHAT_TO_DO}"] if counted else []
        said += [f"the dead letters of {name} cannot be counted: {why}" for name, why in self._faults.items()]
        return "; ".join(said) or None

    def counts(self) -> Mapping[str, int]:
        """How many dead letters each consumer has, those that have any."""
        return {name: consumer.count for name, consumer in self.consumers.items() if consumer.count}

    async def run(self) -> None:
        """Keeps the counts fresh, whichever replica changes them; says them on change and every five minutes.

        Replays what can be read again. What goes wrong with one consumer concerns no other, and never ends it.
        """
        said, silent = None, 0
        while True:
            for consumer in list(self.consumers.values()):
                await self._look(consumer)
            counts, silent = self.counts(), silent + 1
            if counts != (said or {}) or (counts and silent >= _SAY_EVERY_LOOKS):
                structlog.get_logger().warning("dead_letters", parked=sum(counts.values()), **counts)
                said, silent = counts, 0
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _look(self, consumer: DeadLettering) -> None:
        """Counts one consumer's dead letters, and replays now and then what may go through now."""
        name = consumer.name
        try:
            dead = await consumer.dead_letters()
            self._faults.pop(name, None)
            self._until_replay[name] -= 1
            tries = dead.count and self._until_replay[name] < 0
            if tries and not await self._replay_readable(consumer, dead):
                self._until_replay[name] = _REPLAY_EVERY_LOOKS
        except (Unavailable, NotFirst):  # an outage shows elsewhere; another replica replays them, too
            return
        except Exception as error:
            fault = text_of(error).encode("ascii", "backslashreplace").decode()
            if self._faults.get(name) != fault:
                self._faults[name] = fault
                structlog.get_logger().error(
                    "dead_letters.failing", consumer=name, problem=fault, exc_info=error
                )

    async def _replay_readable(self, consumer: DeadLettering, dead: DeadLetters) -> int:
        """Replays the keys whose first event could not be read, or waits for nothing; gives how many went through."""
        keys = [key for key, letters in dead.parked.items() if letters[0].error_type in _REPLAYED]
        replayed = failed = 0
        for key in sorted(keys, key=lambda key: (key <= self._last_key[consumer.name], key)):
            letters = dead.parked[key]
            lane = [Listed(consumer, key, letter, letters[0].position) for letter in letters]
            async for tried in self.replay(lane):
                replayed += tried.failure is None
                failed += tried.failure is not None
            self._last_key[consumer.name] = key
            if failed >= _REPLAYED_KEYS:
                break
        return replayed

    async def listed(self, consumer: str = "") -> list[Listed]:
        """Every dead letter of a consumer, or of all, by consumer and position.

        Raises StreamUnreadable where those of the named consumer cannot be read; of all, they are left out.
        """
        if consumer:
            return await self._listed(self.consumers[consumer]) if consumer in self.consumers else []
        found: list[Listed] = []
        for _, each in sorted(self.consumers.items()):
            with suppress(StreamUnreadable):  # the signal names it
                found += await self._listed(each)
        return found

    async def _listed(self, consumer: DeadLettering) -> list[Listed]:
        return [
            Listed(consumer, key, letter, letters[0].position)
            for letter, key, letters in sorted(
                (letter, key, letters)
                for key, letters in (await consumer.dead_letters()).parked.items()
                for letter in letters
            )
        ]

    async def stored(self, listed: Sequence[Listed]) -> Sequence[tuple[Recorded, EventParked]]:
        """The record of each dead letter, with the event's bytes. Raises StreamUnreadable."""
        asked = [one.record for one in listed]
        slices = await self._log.load(asked)
        return [_parked(each, slice.events) for each, slice in zip(asked, slices, strict=True)]

    async def parked_at(self) -> Mapping[tuple[str, int], datetime]:
        """When each dead letter was set aside, by consumer and position; of very many, some are told later."""
        return await self._times.of(await self.listed())

    async def traceback(self, one: Listed, parked: EventParked) -> str:
        """The newest traceback of a dead letter: that of the last replay, if one failed; empty where none is known."""
        if one.letter.error == parked.error:
            return str(parked.traceback)
        stream, version = StreamId(DEAD_LETTERS.name, one.consumer.name), one.letter.version
        newest = (await one.consumer.dead_letters()).version
        after = max(version, newest - _LOOKED_BACK)
        [found] = await self._log.load([ReadRequest(stream, after, upto=newest)])
        for event in reversed(found.events):
            if event.type != EventReplayFailed.DESCRIPTOR.full_name:
                continue
            failed = EventReplayFailed.FromString(event.payload)
            if failed.position == one.letter.position:
                return str(failed.traceback)
        return ""

    async def replay(
        self, listed: Sequence[Listed], metadata: Metadata | None = None
    ) -> AsyncIterator[Tried]:
        """Replays dead letters in order; one that fails stays, and so do those behind it.

        ``metadata`` is the operator's; None: nobody asked for it, so it is only noted where something changes.
        """
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

    async def _replay(self, one: Listed, metadata: Metadata | None) -> Failure | None:
        [(record, parked)] = await self.stored([one])
        personal = False
        try:
            event = from_wire(parked.log, parked.event)
            personal = holds_personal(event.type, event.payload)
            await one.consumer.replay(event, metadata or record.metadata)
        except (*NOT_THE_EVENTS_FAULT, NotParked, NotFirst):
            raise
        except Exception as error:
            failure, shown = Failure.of(error, 1, personal=personal), without_text(error, personal)
            if metadata or failure[:2] != one.letter[2:4]:
                await one.consumer.note(FailReplay(one.id, failure), metadata or record.metadata, shown)
            return failure
        return None


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"


def _parked(asked: ReadRequest, events: Sequence[Recorded]) -> tuple[Recorded, EventParked]:
    try:
        [record] = events
        return record, EventParked.FromString(record.payload)
    except (ValueError, DecodeError) as error:
        why = f"it is no EventParked ({error})"
        raise StreamUnreadable(stream=asked.stream, version=asked.upto, why=why) from error
