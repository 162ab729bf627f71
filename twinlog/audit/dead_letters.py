"""The dead letters of each consumer, as the logs tell of them; read before anything is judged by them.

Every parked event is the event of the log that it came from; the events of a key stay in order, parked or not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from twinlog.audit.database_snapshots import DatabaseSnapshot
from twinlog.audit.report import Findings
from twinlog.log.ports import Log
from twinlog.log.twin import mirrors
from twinlog.log.wire import from_wire
from twinlog.model.errors import UndecodableEvent, UnknownEventType
from twinlog.model.event import Recorded
from twinlog.model.schema import Schema
from twinlog.v1 import dead_letters_pb2 as pb

PARKED = "parked event is its log's"
ORDER = "order kept behind parked events"

_CHUNK = 2_000
_TYPES: Mapping[str, Any] = {
    type.DESCRIPTOR.full_name: type for type in (pb.EventParked, pb.EventReplayed, pb.EventDiscarded)
}


class DeadLetter(NamedTuple):
    """An event that was parked."""

    position: int
    key: str
    case: str
    """The case that it is about; empty where the event cannot be read."""
    event: Recorded | None
    """None where the bytes are no event, and where it was discarded."""
    messages: Sequence[Message]


class DeadLetters:
    """What one consumer has parked, replayed and discarded, as of its database's snapshot."""

    def __init__(self, consumer: str, log: str) -> None:
        self.consumer = consumer
        self.log = log
        """That it follows."""
        self.parked: dict[int, DeadLetter] = {}
        """By position."""
        self.discarded: dict[int, DeadLetter] = {}
        """By position."""
        self.replayed: list[DeadLetter] = []
        """In the order of their effects."""
        self._waiting: dict[str, list[int]] = {}
        self._ever: set[int] = set()

    def lacks(self, position: int) -> bool:
        """Whether an event had no effect, because it is parked or was discarded."""
        return position in self.parked or position in self.discarded

    def overtaken_by(self, position: int, key: str) -> str | None:
        """The parked event behind which the event at ``position`` should have been parked instead of handled."""
        waiting = self._waiting.get(key)
        if not waiting or waiting[0] > position or position in self._ever:
            return None
        return f"{self.log}/{waiting[0]}"

    def park(self, parked: DeadLetter, *, failed: bool) -> str | None:
        """Adds a parked event; returns what is wrong with its place, if anything."""
        waiting = self._waiting.setdefault(parked.key, [])
        problem = None
        if waiting and parked.position <= waiting[-1]:
            problem = f"was parked behind {self.log}/{waiting[-1]}"
        elif not (waiting or failed):
            problem = "was parked behind another event, and there is none"
        waiting.append(parked.position)
        self._ever.add(parked.position)
        self.parked[parked.position] = parked
        return problem

    def take_out(self, position: int, *, discarded: bool) -> str | None:
        """Removes an event that was replayed or discarded; returns what is wrong with that, if anything."""
        parked = self.parked.pop(position, None)
        if parked is None:
            return None  # the fold of this impossible history reports it
        waiting = self._waiting[parked.key]
        first = waiting[0]
        waiting.remove(position)
        if not waiting:
            del self._waiting[parked.key]
        if discarded:
            self.discarded[position] = parked._replace(event=None, messages=())
            return None
        self.replayed.append(parked)
        return f"was replayed before {self.log}/{first}" if first != position else None


class DeadLettersByConsumer(dict[str, DeadLetters]):
    """A consumer that is not there yet has none."""

    def __init__(self, sources: Mapping[str, str] | None = None) -> None:
        """``sources``: the log that a consumer follows, by consumer, where its name does not end with it."""
        super().__init__()
        self._sources = sources or {}

    def source(self, consumer: str) -> str:
        """The log that a consumer follows."""
        return self._sources.get(consumer) or consumer.rpartition(".")[2]

    def __missing__(self, consumer: str) -> DeadLetters:
        self[consumer] = added = DeadLetters(consumer, self.source(consumer))
        return added


class DeadLetterAudit:
    """Follows the dead letters in one log."""

    def __init__(
        self,
        log: str,
        dead_letters: DeadLettersByConsumer,
        schemas: Mapping[str, Schema],
        case_of: Callable[[Message], str],
    ) -> None:
        """``schemas``: by log, what decodes the events that were parked. ``case_of``: what an event is about."""
        self.log = log
        self.findings = Findings()
        self.position = 0
        """Read up to here."""
        self._dead_letters = dead_letters
        self._schemas = schemas
        self._case_of = case_of

    async def read(self, database: DatabaseSnapshot, logs: Mapping[str, Log]) -> None:
        """Reads up to the snapshot's head; ``logs`` hold the events that were parked, by name."""
        while rows := await database.dead_letters(self.position, _CHUNK):
            told = [(row[0], row[1], message) for row in rows if (message := _message(row[2], row[3]))]
            parked = [(position, of, one) for position, of, one in told if isinstance(one, pb.EventParked)]
            await self._compare(parked, logs)
            for position, consumer, message in told:
                self._enter(f"{self.log}/{position}", self._dead_letters[consumer], message)
            self.position = rows[-1][0]

    def _enter(self, address: str, of_consumer: DeadLetters, message: Any) -> None:
        if isinstance(message, pb.EventParked):
            problem = of_consumer.park(self._dead_letter(message), failed=bool(message.error_type))
        else:
            discarded = isinstance(message, pb.EventDiscarded)
            problem = of_consumer.take_out(message.position, discarded=discarded)
        if problem:
            out_of_order(of_consumer, message.position, problem, address, self.findings)

    def _dead_letter(self, parked: pb.EventParked) -> DeadLetter:
        try:
            event = from_wire(parked.log, parked.event)
            messages = self._schemas[parked.log].decode(event)
        except (KeyError, DecodeError, UnknownEventType, UndecodableEvent):
            return DeadLetter(parked.position, parked.key, "", None, ())
        case = next((case for one in messages if (case := self._case_of(one))), "")
        return DeadLetter(parked.position, parked.key, case, event, messages)

    async def _compare(
        self, parked: Sequence[tuple[int, str, pb.EventParked]], logs: Mapping[str, Log]
    ) -> None:
        for name in {one.log for _, _, one in parked}:
            of_log = [each for each in parked if each[2].log == name]
            events = await _events(logs.get(name), sorted({one.position for _, _, one in of_log}))
            for position, consumer, one in of_log:
                event = events.get(one.position)
                if event is None:
                    what = "which does not exist"
                elif (one.consumer, one.log) != (consumer, self._dead_letters[consumer].log):
                    what = f"in the name of {one.consumer}"
                elif one.key != event.partition_key or not mirrors(one.event, event):
                    what = "and holds another event"
                else:
                    continue
                self.findings.add(
                    PARKED,
                    f"{consumer} parked {one.log}/{one.position}, {what}",
                    ids=[consumer],
                    events=[f"{self.log}/{position}", f"{one.log}/{one.position}"],
                    remedy="do not replay it: DeadLetterService/DiscardDeadLetters, then append what it called for",
                )


def out_of_order(
    of_consumer: DeadLetters, position: int, problem: str, shown_by: str, findings: Findings
) -> None:
    """Reports an event that was handled or parked out of its key's order."""
    address = f"{of_consumer.log}/{position}"
    findings.add(
        ORDER,
        f"{of_consumer.consumer}: {address} {problem}, of the same key",
        ids=[of_consumer.consumer],
        events=list(dict.fromkeys([address, shown_by])),
        remedy="compare what both events did, append what corrects it; find what wrote besides the consumer",
    )


def _message(type: str, payload: bytes) -> Message | None:
    try:
        found: Message | None = _TYPES[type].FromString(payload) if type in _TYPES else None
    except DecodeError:  # the audit of the history reports it
        return None
    return found


async def _events(log: Log | None, positions: Sequence[int]) -> Mapping[int, Recorded]:
    found: dict[int, Recorded] = {}
    while log and positions:
        near = bisect_right(positions, positions[0] + _CHUNK - 1)
        read = await log.read(positions[0] - 1, positions[near - 1] - positions[0] + 1)
        found.update((event.position, event) for event in read)
        positions = positions[near:]
    return found
