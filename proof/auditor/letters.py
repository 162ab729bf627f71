"""What consumers have set aside, as the logs of their services tell it; read before anything is judged by it.

Every parked event is the event of the log that it came from; the events of a key stay in order, parked or not.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from proof.auditor.cuts import Cut
from proof.auditor.report import Findings
from twinlog import Log, Recorded, Schema
from twinlog.testing.internals import UndecodableEvent, UnknownEventType, from_wire, mirrors
from twinlog.v1 import dead_letters_pb2 as pb

PARKED = "parked event is its log's"
ORDER = "order kept behind parked events"

_CHUNK = 2_000
_TYPES: Mapping[str, Any] = {
    type.DESCRIPTOR.full_name: type for type in (pb.EventParked, pb.EventReplayed, pb.EventDiscarded)
}


class DeadLetter(NamedTuple):
    """An event that was set aside."""

    position: int
    key: str
    case: str
    """The order that it is about; empty where the event cannot be read."""
    event: Recorded | None
    """None where the bytes are no event, and where it was given up."""
    messages: Sequence[Message]


class DeadLetters:
    """What one consumer has set aside and given up, at the instant of its database's snapshot."""

    def __init__(self, consumer: str) -> None:
        self.consumer = consumer
        self.log = consumer.rpartition(".")[2]
        self.parked: dict[int, DeadLetter] = {}
        """By position."""
        self.discarded: dict[int, DeadLetter] = {}
        self.replayed: list[DeadLetter] = []
        """In the order of their effects."""
        self._waiting: dict[str, list[int]] = {}
        self._ever: set[int] = set()

    def lacks(self, position: int) -> bool:
        """Whether an event had no effect: it is parked, or was given up."""
        return position in self.parked or position in self.discarded

    def overtaken_by(self, position: int, key: str) -> str | None:
        """The parked event behind which a handled one ought to have been parked."""
        waiting = self._waiting.get(key)
        if not waiting or waiting[0] > position or position in self._ever:
            return None
        return f"{self.log}/{waiting[0]}"

    def add(self, letter: DeadLetter, *, failed: bool) -> str | None:
        """Enters a letter; gives what is wrong with its place."""
        waiting = self._waiting.setdefault(letter.key, [])
        problem = None
        if waiting and letter.position <= waiting[-1]:
            problem = f"was parked behind {self.log}/{waiting[-1]}"
        elif not (waiting or failed):
            problem = "was parked behind another event, and there is none"
        waiting.append(letter.position)
        self._ever.add(letter.position)
        self.parked[letter.position] = letter
        return problem

    def take_out(self, position: int, key: str, *, discarded: bool) -> str | None:
        """Takes a letter out; gives what is wrong with that."""
        letter = self.parked.pop(position, None)
        if letter is None:
            return None  # a history that makes no sense: its fold tells
        waiting = self._waiting[letter.key]
        first = waiting[0]
        waiting.remove(position)
        if not waiting:
            del self._waiting[letter.key]
        if discarded:
            self.discarded[position] = letter._replace(event=None, messages=())
            return None
        self.replayed.append(letter)
        return f"was replayed before {self.log}/{first}" if first != position else None


class AllDeadLetters(dict[str, DeadLetters]):
    """By consumer."""

    def __missing__(self, consumer: str) -> DeadLetters:
        dead_letters = self[consumer] = DeadLetters(consumer)
        return dead_letters


class DeadLettersAudit:
    """Follows the dead letters in one log."""

    def __init__(self, log: str, dead_letters: AllDeadLetters) -> None:
        self.log = log
        self.findings = Findings()
        self.position = 0
        """Read up to here."""
        self._dead_letters = dead_letters
        self._schema = Schema()

    async def read(self, cut: Cut, logs: Mapping[str, Log]) -> None:
        """Reads up to the cut; ``logs`` have the events that were parked."""
        while rows := await cut.letters(self.position, _CHUNK):
            told = [(row[0], row[1], message) for row in rows if (message := _message(row[2], row[3]))]
            parked = [(position, of, one) for position, of, one in told if isinstance(one, pb.EventParked)]
            await self._compare(parked, logs)
            for position, consumer, message in told:
                self._enter(f"{self.log}/{position}", self._dead_letters[consumer], message)
            self.position = rows[-1][0]

    def _enter(self, address: str, dead_letters: DeadLetters, message: Any) -> None:
        if isinstance(message, pb.EventParked):
            problem = dead_letters.add(self._letter(message), failed=bool(message.error_type))
        else:
            discarded = isinstance(message, pb.EventDiscarded)
            problem = dead_letters.take_out(message.position, message.key, discarded=discarded)
        if problem:
            out_of_order(dead_letters, message.position, problem, address, self.findings)

    def _letter(self, parked: pb.EventParked) -> DeadLetter:
        try:
            event = from_wire(parked.log, parked.event)
            messages = self._schema.decode(event)
        except (DecodeError, UnknownEventType, UndecodableEvent):
            return DeadLetter(parked.position, parked.key, "", None, ())
        case = next((id for one in messages if (id := str(getattr(one, "order_id", "")))), "")
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
    dead_letters: DeadLetters, position: int, problem: str, shown_by: str, findings: Findings
) -> None:
    """Reports an event that did not keep its place."""
    address = f"{dead_letters.log}/{position}"
    findings.add(
        ORDER,
        f"{dead_letters.consumer}: {address} {problem}, of the same key",
        ids=[dead_letters.consumer],
        events=list(dict.fromkeys([address, shown_by])),
        remedy="compare what both events did, append what corrects it; find what wrote besides the consumer",
    )


def discards(consumers: Collection[DeadLetters]) -> Iterator[tuple[DeadLetters, DeadLetter]]:
    """What was given up, and by whom."""
    return chain.from_iterable(
        ((dead_letters, letter) for letter in dead_letters.discarded.values()) for dead_letters in consumers
    )


def _message(type: str, payload: bytes) -> Message | None:
    try:
        found: Message | None = _TYPES[type].FromString(payload) if type in _TYPES else None
    except DecodeError:  # the history tells
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
