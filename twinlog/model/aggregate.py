"""The decider: an aggregate as an initial state and two pure functions, decide and evolve.

No clock, no UUIDs, no I/O: time and ids arrive with the command. A repeated command decides no events. A refusal that
others react to is an event; bad input is an error. (Jérémie Chassaing, "Functional Event Sourcing Decider".)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, cast

from google.protobuf.message import Message

from twinlog.model.forms import EVENTS, FLAG, NAME, Form, Forms, function_of, refuse_other, whole

State = TypeVar("State")
Command = TypeVar("Command")

Events = Sequence[Message]
"""The result of a decision: generated protobuf messages."""


LEAST_KEEP_EVERY = 100
"""The fewest versions between two kept snapshots."""


def _never(_state: Any) -> datetime | None:
    return None


def _no_on_due(_state: Any, now: datetime) -> Any:
    raise NotImplementedError("an aggregate with `due` needs `on_due`")


_MUTABLE = (list, dict, set, bytearray)


def is_mutable(value: object) -> bool:
    """Whether a state itself can be changed in place."""
    if is_dataclass(value):
        return not getattr(value, "__dataclass_params__").frozen  # noqa: B009 - typeshed does not know it
    return isinstance(value, _MUTABLE)


def holds_mutable(value: object) -> bool:
    """Whether a state, or anything in it, can be changed in place."""
    if is_mutable(value):
        return True
    if is_dataclass(value) and not isinstance(value, type):
        return any(holds_mutable(getattr(value, each.name, None)) for each in fields(value))
    return isinstance(value, tuple) and any(map(holds_mutable, value))


@dataclass(frozen=True)
class Aggregate(Generic[State, Command]):
    """A kind of stream: its decider, and what the log needs to know about it."""

    name: str
    """The stream type; part of the storage format."""
    initial: State
    """The state of a stream without events."""
    decide: Callable[[State, Command], Events]
    """The events that a command leads to; raises a TwinlogError on bad input."""
    evolve: Callable[[State, Message], State]
    """The state after an event."""
    partition_key: Callable[[State], str]
    """From the state after an event: events with the same key are handled in order. It decides the bucket."""
    due: Callable[[State], datetime | None] = _never
    """When this stream is to be woken, or None. The log keeps one timer row per stream, set and cleared with the events
    that change it."""
    on_due: Callable[[State, datetime], Command] = _no_on_due
    """The command of a wake-up, from the state and the current time."""
    events: Sequence[type[Message]] = ()
    """The types of its events, optional. Once listed, it decides no others, and no other aggregate of its service may
    have one of them: a rule, view or saga for a type could not tell whose event it is."""
    keep_every: int = 1_000
    """A snapshot is kept every so many versions, at least 100, so that any past version is read at once; 0: none is
    kept."""
    keep_bytes: int = 256 * 2**20
    """About how many bytes the kept snapshots of one stream may take. Beyond that, every second one is left out, then
    three of four, and so on."""
    keeps_personal: bool = True
    """Whether its state may hold texts of personal fields; its snapshots are then sealed with the key of the stream's
    own id. False: the fold drops these texts, so it may be given them sealed."""

    pristine = cast(Any, None)
    """A copy of the initial state, if anything in it can be changed in place."""

    def __post_init__(self) -> None:
        refuse_other(f"aggregate {self.name!r}", self, _FORMS)
        if holds_mutable(self.initial):
            object.__setattr__(self, "pristine", deepcopy(self.initial))

    @property
    def has_timers(self) -> bool:
        """Whether its streams ever want to be woken."""
        return self.due is not _never

    @property
    def answers_timers(self) -> bool:
        """Whether it says what a wake-up means."""
        return self.on_due is not _no_on_due

    def fold(self, events: Events, state: State | None = None) -> State:
        """The state after ``events``, starting from ``state`` or from the initial state.

        Raises TypeError where ``evolve`` gives None for it: the next event would be the first of a new stream.
        """
        folded = self.initial if state is None else state
        for event in events:
            folded = self.evolve(folded, event)
            if folded is None and self.initial is not None:
                raise TypeError(f"it gives None after {event.DESCRIPTOR.full_name}; return the state")
        return folded


AnyAggregate = Aggregate[Any, Any]

_FORMS: Forms = {
    "name": NAME,
    "decide": function_of("the state and a command"),
    "evolve": function_of("the state and an event"),
    "partition_key": function_of("the state"),
    "due": function_of("the state"),
    "on_due": function_of("the state and the time"),
    "events": EVENTS,
    "keep_every": Form(
        lambda every: whole(0).holds(every) and (every == 0 or every >= LEAST_KEEP_EVERY),
        f"{LEAST_KEEP_EVERY} or more, or 0",
    ),
    "keep_bytes": whole(0, 2**63 - 1),
    "keeps_personal": FLAG,
}
