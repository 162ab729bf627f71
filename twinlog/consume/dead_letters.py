"""Dead letters: the events that a consumer could not handle, and those of the same key behind them.

One stream a consumer, in the log of the consumer's own service: what is parked, replayed or given up is decided
and recorded like everything else, in the transaction of the effects. So no replica, zombie or operator can
let an event overtake an earlier one of its key, or have its effect twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from google.protobuf.message import Message

from twinlog.log.wire import to_wire
from twinlog.model.aggregate import Aggregate, Events
from twinlog.model.errors import FailedPrecondition, NotFound
from twinlog.model.event import Recorded
from twinlog.model.maps import EMPTY, Map
from twinlog.v1 import dead_letters_pb2 as pb

_LONGEST_ERROR = 500


# --- state -------------------------------------------------------------------------------------------------


class Letter(NamedTuple):
    """One parked event; its bytes stay in the stream."""

    position: int
    version: int
    """Of the EventParked in the consumer's stream."""
    error_type: str
    """Empty: it only waits behind an earlier one of its key."""
    error: str
    """The newest, where it was replayed in vain."""
    attempts: int
    """Before it was parked."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """What one consumer has parked."""

    parked: Map[str, tuple[Letter, ...]] = field(default_factory=lambda: EMPTY)
    """By key, in the order of their log."""
    count: int = 0
    version: int = 0
    key: str = ""
    """What the last event was about."""

    def first(self, key: str) -> Letter | None:
        """What holds up a key; None where nothing does."""
        letters = self.parked.get(key)
        return letters[0] if letters else None

    def letters(self) -> Iterator[tuple[str, Letter]]:
        """Every letter with its key; the keys in no order."""
        return ((key, letter) for key, letters in self.parked.items() for letter in letters)


# --- commands ----------------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """Why an event could not be handled."""

    error_type: str
    error: str
    attempts: int

    @classmethod
    def of(cls, error: BaseException, attempts: int) -> Failure:
        """What is kept of an error."""
        return cls(type(error).__name__, (str(error) or type(error).__name__)[:_LONGEST_ERROR], attempts)


BEHIND = Failure("", "", 0)
"""Nothing is wrong with the event itself: an earlier one of its key is parked."""


@dataclass(frozen=True, slots=True)
class Park:
    """Sets an event aside."""

    consumer: str
    event: Recorded
    failure: Failure = BEHIND


class Named(NamedTuple):
    """Names a parked event."""

    consumer: str
    log: str
    position: int
    key: str


@dataclass(frozen=True, slots=True)
class Replay:
    """Takes out the first event of a key, whose effect is in the same transaction."""

    letter: Named


@dataclass(frozen=True, slots=True)
class FailReplay:
    """Notes that a parked event failed again."""

    letter: Named
    failure: Failure


@dataclass(frozen=True, slots=True)
class Discard:
    """Gives a parked event up."""

    letter: Named
    reason: str


Command = Park | Replay | FailReplay | Discard


class NotParked(NotFound):
    """{consumer} has not parked {address}: it was never parked, or it was replayed or discarded already."""

    reason = "NOT_PARKED"


class NotFirst(FailedPrecondition):
    """{consumer} has parked {first} before {address}, under the same key; replay or discard that one first."""

    reason = "NOT_FIRST_OF_ITS_KEY"


# --- evolve ------------------------------------------------------------------------------------------------


def evolve(dead: DeadLetters, event: Message) -> DeadLetters:
    match event:
        case pb.EventParked():
            letter = Letter(event.position, dead.version + 1, event.error_type, event.error, event.attempts)
            return _with(dead, event.key, (*dead.parked.get(event.key, ()), letter))
        case pb.EventReplayFailed():
            return _with(dead, event.key, tuple(_failed(letter, event) for letter in dead.parked[event.key]))
        case pb.EventReplayed() | pb.EventDiscarded():
            kept = (letter for letter in dead.parked[event.key] if letter.position != event.position)
            return _with(dead, event.key, tuple(kept))
    return replace(dead, version=dead.version + 1)


def _failed(letter: Letter, event: pb.EventReplayFailed) -> Letter:
    if letter.position != event.position:
        return letter
    return letter._replace(error_type=event.error_type, error=event.error)


def _with(dead: DeadLetters, key: str, letters: tuple[Letter, ...]) -> DeadLetters:
    count = dead.count - len(dead.parked.get(key, ())) + len(letters)
    parked = dead.parked.insert(key, letters) if letters else dead.parked.remove(key)
    return DeadLetters(parked, count, dead.version + 1, key)


# --- decide ------------------------------------------------------------------------------------------------


def decide(dead: DeadLetters, command: Command) -> Events:
    match command:
        case Park(consumer, event, failure):
            if _find(dead, event.partition_key, event.position):
                return []
            named = Named(consumer, event.log, event.position, event.partition_key)
            return [pb.EventParked(**named._asdict(), event=to_wire(event), **failure._asdict())]
        case Replay(letter):
            _require(dead, letter)
            first = dead.first(letter.key)
            if first and first.position != letter.position:
                raise NotFirst(
                    consumer=letter.consumer,
                    first=f"{letter.log}/{first.position}",
                    address=f"{letter.log}/{letter.position}",
                )
            return [pb.EventReplayed(**letter._asdict())]
        case FailReplay(letter, failure):
            known = _require(dead, letter)
            if (known.error_type, known.error) == (failure.error_type, failure.error):
                return []
            return [
                pb.EventReplayFailed(**letter._asdict(), error_type=failure.error_type, error=failure.error)
            ]
        case Discard(letter, reason):
            _require(dead, letter)
            return [pb.EventDiscarded(**letter._asdict(), reason=reason)]


def _find(dead: DeadLetters, key: str, position: int) -> Letter | None:
    return next((letter for letter in dead.parked.get(key, ()) if letter.position == position), None)


def _require(dead: DeadLetters, named: Named) -> Letter:
    letter = _find(dead, named.key, named.position)
    if letter is None:
        raise NotParked(consumer=named.consumer, address=f"{named.log}/{named.position}")
    return letter


DEAD_LETTERS: Aggregate[DeadLetters, Command] = Aggregate(
    "dead_letters", DeadLetters(), decide, evolve, partition_key=lambda dead: dead.key
)
"""The id of a stream is the consumer's name."""
