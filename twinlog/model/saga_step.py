"""A step of a saga: its command, made from what the instance knows, the events that answer it, its compensation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message

from twinlog.model.forms import (
    DURATION_OR_TIME,
    EVENT,
    FLAG,
    MOST_DAYS,
    NAME,
    TEXT,
    Form,
    Forms,
    function_of,
    one,
    optional,
    refuse_other,
    refuse_value,
    whole,
)
from twinlog.model.messages import unpack


class Replies(Mapping[str, Any]):
    """The replies of steps, by the names of the steps; each is unpacked when it is asked for."""

    __slots__ = ("_packed",)

    def __init__(self, packed: Mapping[str, bytes]) -> None:
        """``packed``: each as the bytes of a google.protobuf.Any."""
        self._packed = packed

    def __getitem__(self, step: str) -> Any:
        if step not in self._packed:
            kept = ", ".join(f'"{name}"' for name in self._packed) or "none"
            raise KeyError(f'no reply of step "{step}" is kept; there are: {kept}')
        return unpack(Packed.FromString(self._packed[step]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


_NO_REPLIES = Replies({})
_CONTEXT_FORMS: Forms = {
    "reason": TEXT,
    "aborted": FLAG,
    "replies": Form(
        lambda given: isinstance(given, Mapping), "a mapping from the names of steps to messages"
    ),
    "attempt": whole(1),
}
_BOUNDED = Form(
    lambda given: isinstance(given, timedelta) and given <= timedelta(days=MOST_DAYS),
    f"a timedelta, such as timedelta(seconds=5), of at most {MOST_DAYS} days",
)
_BACKOFF_FORMS: Forms = {"first": _BOUNDED, "most": _BOUNDED, "attention_after": whole(1)}
"""What is too short is told with the table, by the step that has it."""


@dataclass(frozen=True)
class SagaContext:
    """What an instance knows when it makes a command."""

    trigger: Any
    """The event that started it."""
    reason: str = ""
    """Why it is being compensated."""
    refusal: Any = None
    """The participant's refusal that led to compensation; None after a timeout, an interruption or an abort."""
    aborted: bool = False
    """Whether an operator aborted it."""
    replies: Mapping[str, Any] = field(default_factory=lambda: _NO_REPLIES)
    """By step, the event that answered it with success: ``context.replies["authorize payment"].payment_id``. A step
    that was skipped, left out, undone unanswered or answered under 0.1.0 has none."""
    attempt: int = 1
    """How many times the command that is made has been sent, this one included. It only grows, also where an operator
    has it sent again: a participant tells by it what is tried anew from what it hears once more."""

    def __post_init__(self) -> None:
        sound = isinstance(self.reason, str) and isinstance(self.aborted, bool)
        # Looked at part by part only where one is wrong: there is one for each command.
        if not sound or not isinstance(self.replies, Mapping) or not isinstance(self.attempt, int):
            refuse_value("SagaContext", self, _CONTEXT_FORMS)


@dataclass(frozen=True)
class Backoff:
    """When a command is sent again: after ``first``, then after twice as long each time, up to ``most``."""

    first: timedelta = timedelta(seconds=5)
    most: timedelta = timedelta(minutes=5)
    attention_after: int = 5
    """After this many failed attempts, an instance that retries without end shows that it needs attention."""

    def __post_init__(self) -> None:
        refuse_other("Backoff", self, _BACKOFF_FORMS)

    def delay(self, attempt: int) -> timedelta:
        """How long attempt number ``attempt``, from 1, waits for its answer, or for the next one after it failed."""
        return min(self.first * (1 << min(attempt - 1, 20)), self.most)


@dataclass(frozen=True)
class Step:
    """One step: a command, the events that answer it, and its compensation.

    Without ``send`` it waits for a person or another outside signal; with ``lasts`` it waits for a time.
    """

    name: str
    """For people, such as "reserve credit"; the key of its reply. No other step has it."""
    send: Callable[[SagaContext], Message] | None = None
    """Makes the command; None: it waits for ``done`` or ``refused`` to come by itself."""
    done: type[Message] | None = None
    """The event that says it succeeded."""
    refused: type[Message] | None = None
    """The event that says it failed."""
    why: Callable[[Any], str] = lambda refusal: str(refusal.DESCRIPTOR.name)
    """From the refusal: the reason, for people."""
    undo: Callable[[SagaContext], Message] | None = None
    """Makes the command that compensates the step; None: there is nothing to compensate. It may be sent while the
    step's own command is still under way, and the participant then lets that come to nothing."""
    undone: type[Message] | None = None
    """The event that says it is compensated."""
    matches: Callable[[Any], bool] | None = None
    """Whether an answer of these types is this step's, where several steps have answers of one type:
    ``lambda event: event.leg == 2``. None: each is."""
    deadline: timedelta | Callable[[Any], datetime] | None = None
    """How long the answer may take, or a function from the trigger to the time it is due; None: as long as it takes,
    for a step that has to happen in the end."""
    retries: int = 0
    """How often the command is sent again, overdue or after a transient failure, before the step has failed."""
    transient: type[Message] | Callable[[Any], bool] | None = None
    """What tells a failure that may pass from a business refusal: a separate event, or a function of the refusal.
    The command is then sent again, when ``backoff`` says."""
    backoff: Backoff | None = None
    """When it is sent again after a transient failure; None: the saga's."""
    when: Callable[[SagaContext], bool] | None = None
    """Whether the step is needed, decided once when its turn comes; None: always."""
    lasts: timedelta | Callable[[Any], datetime] | None = None
    """How long it waits, or a function from the trigger to the time when the wait ends."""
    no_return: bool = False
    """The point of no return: once it is done, the saga only goes forward. What is refused or overdue from there on is
    tried again without limit, and interruptions and aborts come too late."""
    group: str = field(default="", repr=False)
    """The name of the first step of its :class:`Parallel`; empty for a step that stands alone."""
    together: tuple[Step, ...] = field(default=(), repr=False)
    """The steps of a :class:`Parallel`."""

    def __post_init__(self) -> None:
        refuse_other(f"step {self.name!r}", self, _STEP_FORMS)

    def is_transient(self, failure: Message) -> bool:
        """Whether a failure may pass."""
        if isinstance(self.transient, type):
            return isinstance(failure, self.transient)
        of_type = self.refused is not None and isinstance(failure, self.refused)
        return self.transient is not None and of_type and bool(self.transient(failure))

    @cached_property
    def answers(self) -> tuple[type[Message], ...]:
        """The events that answer its command."""
        failure = self.transient if isinstance(self.transient, type) else None
        return tuple(answer for answer in (self.done, self.refused, failure) if answer)


class Parallel(Step):
    """Steps that begin together: all must succeed; the first refusal undoes the others, whether under way or done."""

    def __init__(self, *steps: Step) -> None:
        super().__init__("in parallel", together=steps)


_MAKES_COMMAND = optional(
    function_of("the context that makes the command, such as lambda context: HoldRoom(id=context.trigger.id)")
)
_STEP_FORMS: Forms = {
    "name": NAME,
    "send": _MAKES_COMMAND,
    "done": optional(EVENT),
    "refused": optional(EVENT),
    "why": function_of("the refusal"),
    "undo": _MAKES_COMMAND,
    "undone": optional(EVENT),
    "matches": optional(function_of("the event")),
    "deadline": optional(DURATION_OR_TIME),
    "retries": whole(-(2**31)),
    "transient": Form(
        lambda given: given is None or EVENT.holds(given) or callable(given),
        "the generated class of a message, or a function of the refusal",
    ),
    "backoff": optional(one(Backoff, "a Backoff, such as Backoff(first=timedelta(seconds=5))")),
    "when": optional(function_of("the context")),
    "lasts": optional(DURATION_OR_TIME),
    "no_return": FLAG,
}
