"""Dead letters: the events that a consumer could not handle, and those of the same key behind them.

Each consumer has one stream of them, in the log of its own service. What is set aside, replayed or given up is decided
and recorded like everything else, in the transaction of the effects: no replica, zombie or operator can let an event
overtake an earlier one of its key, or have its effect twice. In the stored events, which keep their names, an event
that is set aside is *parked*.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from traceback import format_exception
from typing import NamedTuple, cast

from google.protobuf.message import Message

from twinlog.log.wire import to_wire
from twinlog.model.aggregate import Aggregate, Events
from twinlog.model.errors import FailedPrecondition, NotFound, TwinlogError, text_of
from twinlog.model.event import Recorded
from twinlog.model.maps import EMPTY, Map
from twinlog.model.withheld import withheld
from twinlog.v1 import dead_letters_pb2 as pb

_LONGEST_ERROR = 500
_LONGEST_TRACEBACK = 4_000


# --- state -------------------------------------------------------------------------------------------------


class DeadLetter(NamedTuple):
    """One event that is set aside; its bytes stay in the stream."""

    position: int
    version: int
    """Of the EventParked in the consumer's stream."""
    error_type: str
    """Empty: it only waits behind an earlier one of its key."""
    error: str
    """The newest, where a replay failed."""
    attempts: int
    """Before it was set aside."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """What one consumer has set aside."""

    parked: Map[str, tuple[DeadLetter, ...]] = field(default_factory=lambda: EMPTY)
    """By key, in the order of their log."""
    count: int = 0
    version: int = 0
    key: str = ""
    """What the last event was about."""

    def first(self, key: str) -> DeadLetter | None:
        """What holds up a key; None where nothing does."""
        letters = self.parked.get(key)
        return letters[0] if letters else None

    def letters(self) -> Iterator[tuple[str, DeadLetter]]:
        """Every letter with its key; the keys in no order."""
        return ((key, letter) for key, letters in self.parked.items() for letter in letters)


# --- commands ----------------------------------------------------------------------------------------------


class TriedInVain(Exception):
    """A consumer has tried an event often enough by itself: it is set aside, for what it failed with."""

    def __init__(self, error: Exception, attempts: int) -> None:
        super().__init__(text_of(error))
        self.error = error
        self.attempts = attempts


class Failure(NamedTuple):
    """Why an event could not be handled."""

    error_type: str
    error: str
    attempts: int
    traceback: str = ""
    """The end of it, where it is longest."""

    @classmethod
    def of(cls, error: BaseException, attempts: int, *, personal: bool = False) -> Failure:
        """What is kept of an error; ``personal``: the event may hold personal fields, and so may the error's text."""
        if isinstance(error, TriedInVain):
            return cls.of(error.error, error.attempts, personal=personal)
        if personal and (shown := withheld(error, personal)) is not error:
            return cls.of(shown, attempts)._replace(error_type=type(error).__name__)
        text = (text_of(error) or type(error).__name__)[:_LONGEST_ERROR]
        return cls(type(error).__name__, text, attempts, _traceback(error))


def without_text(error: Exception, personal: bool) -> Exception:
    """An error for the logs; ``personal``: as for :meth:`Failure.of`."""
    inner = error.error if isinstance(error, TriedInVain) else error
    shown = withheld(inner, personal)
    return error if shown is inner else cast(Exception, shown)


def _traceback(error: BaseException) -> str:
    """Its end says where it happened; whatever is no text in it is escaped."""
    text = "".join(format_exception(error)).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _LONGEST_TRACEBACK else f"…{text[1 - _LONGEST_TRACEBACK :]}"


BEHIND = Failure("", "", 0)
"""Nothing is wrong with the event itself: an earlier one of its key is a dead letter."""


@dataclass(frozen=True, slots=True)
class AddDeadLetter:
    """Sets an event aside."""

    consumer: str
    event: Recorded
    failure: Failure = BEHIND


class DeadLetterId(NamedTuple):
    """Names a dead letter."""

    consumer: str
    log: str
    position: int
    key: str


@dataclass(frozen=True, slots=True)
class Replay:
    """Takes out the first event of a key, whose effect is in the same transaction."""

    letter: DeadLetterId


@dataclass(frozen=True, slots=True)
class FailReplay:
    """Notes that a replay failed."""

    letter: DeadLetterId
    failure: Failure


@dataclass(frozen=True, slots=True)
class Discard:
    """Gives a dead letter up."""

    letter: DeadLetterId
    reason: str


Command = AddDeadLetter | Replay | FailReplay | Discard


class NotParked(NotFound):
    """{address} is no dead letter of {consumer}: it never was one, or it was replayed or discarded already."""

    reason = "NOT_PARKED"


class NotFirst(FailedPrecondition):
    """{consumer} has parked {first} before {address}, under the same key; replay or discard that one first."""

    reason = "NOT_FIRST_OF_ITS_KEY"


class DeadLettersChanged(TwinlogError):
    """The dead letters of {consumer} changed meanwhile: another replica, or a replay, was faster."""

    reason = "DEAD_LETTERS_CHANGED"


# --- evolve ------------------------------------------------------------------------------------------------


def evolve(dead: DeadLetters, event: Message) -> DeadLetters:
    match event:
        case pb.EventParked():
            letter = DeadLetter(
                event.position, dead.version + 1, event.error_type, event.error, event.attempts
            )
            return _with(dead, event.key, (*dead.parked.get(event.key, ()), letter))
        case pb.EventReplayFailed():
            before, named, after = _parted(dead, event)
            failed = (each._replace(error_type=event.error_type, error=event.error) for each in named)
            return _with(dead, event.key, (*before, *failed, *after))
        case pb.EventReplayed() | pb.EventDiscarded():
            before, _, after = _parted(dead, event)
            return _with(dead, event.key, before + after)
    return replace(dead, version=dead.version + 1)


def _parted(
    dead: DeadLetters, event: pb.EventReplayFailed | pb.EventReplayed | pb.EventDiscarded
) -> tuple[tuple[DeadLetter, ...], tuple[DeadLetter, ...], tuple[DeadLetter, ...]]:
    """The letters of a key before the one that an event is about, that one, and those behind it, of which there may be
    very many: they are not looked at."""
    letters = dead.parked[event.key]
    at = next((at for at, letter in enumerate(letters) if letter.position == event.position), len(letters))
    return letters[:at], letters[at : at + 1], letters[at + 1 :]


def _with(dead: DeadLetters, key: str, letters: tuple[DeadLetter, ...]) -> DeadLetters:
    count = dead.count - len(dead.parked.get(key, ())) + len(letters)
    parked = dead.parked.insert(key, letters) if letters else dead.parked.remove(key)
    return DeadLetters(parked, count, dead.version + 1, key)


# --- decide ------------------------------------------------------------------------------------------------


def decide(dead: DeadLetters, command: Command) -> Events:
    match command:
        case AddDeadLetter(consumer, event, failure):
            if _find(dead, event.partition_key, event.position):
                return []
            named = DeadLetterId(consumer, event.log, event.position, event.partition_key)
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
                pb.EventReplayFailed(
                    **letter._asdict(),
                    error_type=failure.error_type,
                    error=failure.error,
                    traceback=failure.traceback,
                )
            ]
        case Discard(letter, reason):
            _require(dead, letter)
            return [pb.EventDiscarded(**letter._asdict(), reason=reason)]


def _find(dead: DeadLetters, key: str, position: int) -> DeadLetter | None:
    return next((letter for letter in dead.parked.get(key, ()) if letter.position == position), None)


def _require(dead: DeadLetters, named: DeadLetterId) -> DeadLetter:
    letter = _find(dead, named.key, named.position)
    if letter is None:
        raise NotParked(consumer=named.consumer, address=f"{named.log}/{named.position}")
    return letter


DEAD_LETTERS: Aggregate[DeadLetters, Command] = Aggregate(
    "dead_letters", DeadLetters(), decide, evolve, partition_key=lambda dead: dead.key
)
"""The id of a stream is the consumer's name."""
