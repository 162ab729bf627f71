"""Sagas: a table of steps with their compensations, and the pure transition that runs it.

An instance is an aggregate like any other: replies, interruptions, deadlines and operators' orders are its commands;
its events are twinlog.v1.Saga… with the commands to participants between them. Compensations run in reverse order
and are retried without limit; past a threshold the instance shows that it needs attention.
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
"""The reason of a step that nobody answered in time."""

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
    """What an instance knows when it sends a command."""

    trigger: Any
    """The event that started it."""
    reason: str = ""
    """Why it is being undone."""
    refusal: Any = None
    """The refusal that made it so; None where nobody answered in time."""
    aborted: bool = False
    """Whether an operator gave it up."""


@dataclass(frozen=True)
class Step:
    """One step: a command, its answers, and how to undo it."""

    name: str
    send: Callable[[SagaContext], Message]
    done: type[Message]
    refused: type[Message] | None = None
    why: Callable[[Any], str] = lambda refusal: str(refusal.DESCRIPTOR.name)
    """From the refusal: the reason, for people."""
    undo: Callable[[SagaContext], Message] | None = None
    undone: type[Message] | None = None
    deadline: timedelta | Callable[[Any], datetime] | None = None
    """How long an answer may take, or, from the trigger, until when; None: for ever, for a step that must happen in
    the end."""
    retries: int = 0
    """How often the command is sent again at its deadline before the step is given up."""


@dataclass(frozen=True)
class Backoff:
    """How a compensation is retried: after ``first``, then twice as long each time, at most ``most``."""

    first: timedelta = timedelta(seconds=5)
    most: timedelta = timedelta(minutes=5)
    attention_after: int = 5
    """After how many unanswered tries the instance shows that it needs attention."""

    def delay(self, attempt: int) -> timedelta:
        """How long the try number ``attempt``, from 1, waits for its answer."""
        return min(self.first * (1 << min(attempt - 1, 20)), self.most)


@dataclass(frozen=True)
class Saga:
    """The table of a saga, at a version. Instances keep to the version they started with."""

    name: str
    version: int
    starts_with: type[Message]
    steps: Sequence[Step]
    partition_key: Callable[[Any], str]
    """From the trigger: the partition key of the instance's events."""
    on_compensated: Step | None = None
    """The command that tells of a saga that was undone; only its ``send`` and ``done`` count."""
    interrupted_by: Mapping[type[Message], Callable[[Any], str]] = field(default_factory=dict)
    """Events after which the saga undoes what it did, even when it is completed, and sends no closing command; from
    each: the reason, for people. One that answers the closing command is that answer."""
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
    """The step whose answer is awaited; ``len(steps)``: the closing command's; None: nobody's."""
    attempts: int = 0
    deadline: datetime | None = None
    reason: str = ""
    refusal: StoredMessage = None
    interrupted: bool = False
    needs_attention: bool = False
    aborted: bool = False

    @property
    def context(self) -> SagaContext:
        """What its commands are made from."""
        return SagaContext(self.trigger, self.reason, self.refusal, self.aborted)


# --- commands ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """The triggering event happened."""

    event: Message
    now: datetime


@dataclass(frozen=True, slots=True)
class Reply:
    """A participant's event, which may answer what is awaited, or interrupt."""

    event: Message
    now: datetime


@dataclass(frozen=True, slots=True)
class Wake:
    """The deadline of the awaited answer has come."""

    now: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """An operator wants the awaited command sent again."""

    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Skip:
    """An operator wants the awaited answer no longer waited for."""

    reason: str
    now: datetime


@dataclass(frozen=True, slots=True)
class Abort:
    """An operator wants the saga undone."""

    reason: str
    now: datetime


Command = Begin | Reply | Wake | Retry | Skip | Abort
