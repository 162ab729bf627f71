"""Sagas as tables of steps with their compensations; the state of an instance, and the commands that it takes.

An instance is an aggregate like any other. Its commands are the participants' replies, interruptions, deadlines and
operators' orders; its events are twinlog.v1.Saga… and, between them, the commands to participants. Compensations run
in reverse order and are retried without limit; past a threshold the instance shows that it needs attention.
(Garcia-Molina and Salem, "Sagas", 1987.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message

from twinlog.model.messages import StoredMessage
from twinlog.v1 import saga_pb2 as pb

TIMED_OUT = "DEADLINE_EXCEEDED"
"""The reason of a step that was not answered in time."""

Event = (
    pb.SagaStarted
    | pb.SagaStepSucceeded
    | pb.SagaStepFailed
    | pb.SagaInterrupted
    | pb.SagaStepCompensated
    | pb.SagaCommandRetried
    | pb.SagaNeedsAttention
    | pb.SagaRetryRequested
    | pb.SagaStepSkipped
    | pb.SagaAborted
    | pb.SagaCompleted
    | pb.SagaCompensated
)


# --- the table ---------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Step:
    """One step: a command, the events that answer it, and its compensation."""

    name: str
    """For people, such as "reserve credit"."""
    send: Callable[[SagaContext], Message]
    """Makes the command."""
    done: type[Message]
    """The event that says it succeeded."""
    refused: type[Message] | None = None
    """The event that says it failed."""
    why: Callable[[Any], str] = lambda refusal: str(refusal.DESCRIPTOR.name)
    """From the refusal: the reason, for people."""
    undo: Callable[[SagaContext], Message] | None = None
    """Makes the command that compensates the step; None: there is nothing to compensate."""
    undone: type[Message] | None = None
    """The event that says it is compensated."""
    deadline: timedelta | Callable[[Any], datetime] | None = None
    """How long the answer may take, or a function from the trigger to the time it is due; None: as long as it takes,
    for a step that has to happen in the end."""
    retries: int = 0
    """How often an overdue command is sent again before the step has failed."""


@dataclass(frozen=True)
class Backoff:
    """When an unanswered compensation is sent again: after ``first``, then after twice as long each time, up to
    ``most``."""

    first: timedelta = timedelta(seconds=5)
    most: timedelta = timedelta(minutes=5)
    attention_after: int = 5
    """The number of unanswered attempts after which the instance shows that it needs attention."""

    def delay(self, attempt: int) -> timedelta:
        """How long attempt number ``attempt``, from 1, waits for its answer."""
        return min(self.first * (1 << min(attempt - 1, 20)), self.most)


@dataclass(frozen=True)
class Saga:
    """One version of a saga's table. An instance keeps to the version that it started with."""

    name: str
    version: int
    starts_with: type[Message]
    """The event that starts an instance: its trigger."""
    steps: Sequence[Step]
    """At least one; they run in order."""
    partition_key: Callable[[Any], str]
    """From the trigger: the partition key of the instance's events."""
    on_compensated: Step | None = None
    """The closing command, sent once every compensation is done; only its ``send`` and ``done`` are used."""
    interrupted_by: Mapping[type[Message], Callable[[Any], str]] = field(default_factory=dict)
    """Events that make the saga compensate, even once it is completed, and leave out the closing command; each with a
    function from the event to the reason, for people. One that answers the closing command counts as its answer."""
    backoff: Backoff = Backoff()


# --- state -------------------------------------------------------------------------------------------------


class SagaStatus(StrEnum):
    """Where an instance stands."""

    NONE = "none"
    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


class StepState(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    COMPENSATING = "compensating"
    COMPENSATED = "compensated"
    SKIPPED = "skipped"
    """Counts as done."""
    UNDO_SKIPPED = "undo_skipped"
    """Counts as compensated."""


@dataclass(frozen=True, slots=True)
class SagaInstance:
    """The state of one saga."""

    status: SagaStatus = SagaStatus.NONE
    version: int = 0
    trigger: StoredMessage = None
    steps: tuple[StepState, ...] = ()
    current: int | None = None
    """The step whose answer is awaited; ``len(steps)`` for the closing command; None: no answer is awaited."""
    attempts: int = 0
    deadline: datetime | None = None
    reason: str = ""
    refusal: StoredMessage = None
    interrupted: bool = False
    needs_attention: bool = False
    aborted: bool = False

    @property
    def context(self) -> SagaContext:
        """What its commands are made of."""
        return SagaContext(self.trigger, self.reason, self.refusal, self.aborted)


# --- commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The saga's trigger has happened."""

    event: Message
    now: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """A participant's event has come: the awaited answer, an interruption, or of no concern."""

    event: Message
    now: datetime


@dataclass(frozen=True, slots=True)
class Wake:
    """The awaited answer is overdue."""

    now: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """An operator has the awaited command sent again."""

    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Skip:
    """An operator has the saga go on without the awaited answer."""

    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Abort:
    """An operator has the saga compensated."""

    reason: str
    now: datetime


Command = Begin | Reply | Wake | Retry | Skip | Abort
