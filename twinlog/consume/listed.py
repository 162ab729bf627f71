"""Dead letters as operators list them, and when they were set aside: times that never change, read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from twinlog.consume.dead_lettering import DeadLettering
from twinlog.consume.dead_letters import DEAD_LETTERS, DeadLetter, DeadLetterId
from twinlog.log.ports import Log, ReadRequest
from twinlog.model.event import StreamId

PARTS = 24
"""Those of a trend."""
_BATCH = 500
_MOST_READ = 2_000
"""How many are read for one answer; the others are read for the next ones."""


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
    def record(self) -> ReadRequest:
        """What asks the log for the event that has set it aside."""
        stream, version = StreamId(DEAD_LETTERS.name, self.consumer.name), self.letter.version
        return ReadRequest(stream, version - 1, upto=version)

    @property
    def address(self) -> str:
        """``log/position`` of the event."""
        return f"{self.consumer.source}/{self.letter.position}"


class ParkedTimes:
    """The times of the dead letters in one log, as far as they have been read."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._known: dict[tuple[str, int], datetime] = {}
        """By consumer and position."""

    async def of(self, listed: Sequence[Listed]) -> Mapping[tuple[str, int], datetime]:
        """Those of all dead letters there are, by consumer and position; the newest first, where there are many."""
        there = {(one.consumer.name, one.letter.position): one for one in listed}
        self._known = {at: when for at, when in self._known.items() if at in there}
        missing = [one for at, one in reversed(there.items()) if at not in self._known][:_MOST_READ]
        for start in range(0, len(missing), _BATCH):
            await self._read(missing[start : start + _BATCH])
        return self._known

    async def _read(self, listed: Sequence[Listed]) -> None:
        slices = await self._log.load([one.record for one in listed])
        for one, found in zip(listed, slices, strict=True):
            for event in found.events:
                self._known[one.consumer.name, one.letter.position] = event.recorded_at


def trend(times: Sequence[datetime], now: datetime, seconds: float) -> list[int]:
    """How many of the times lie in each 24th of the last ``seconds``, the oldest first."""
    ages = (max(0.0, (now - each).total_seconds()) for each in times)
    parts = Counter(PARTS - 1 - int(age * PARTS / seconds) for age in ages if age < seconds)
    return [parts[part] for part in range(PARTS)]
