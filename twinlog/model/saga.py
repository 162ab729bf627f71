"""Sagas: the state of an instance, and the commands that it takes; the table is :mod:`twinlog.model.saga_table`.

An instance is an aggregate like any other. Its commands are the participants' replies, interruptions, deadlines and
operators' orders; its events are twinlog.v1.Saga… and, between them, the commands to participants. Compensations run
in reverse order of what happened and are retried without limit; past a threshold the instance shows that it needs
attention.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from google.protobuf.message import Message

from twinlog.model.forms import MOMENT, TEXT, Forms, one, optional, refuse_value
from twinlog.model.messages import PackedMessage, StoredMessage
from twinlog.model.saga_step import Replies, SagaContext

TIMED_OUT = "DEADLINE_EXCEEDED"
"""The reason of a step that was not answered in time."""

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
    LEFT_OUT = "left_out"
    """Its condition did not hold when its turn came."""


class Awaited(NamedTuple):
    """An answer that is awaited."""

    step: int
    """The step; the number of steps for the closing command."""
    attempts: int = 1
    """How many times its command was sent, counted from the last order to send it."""
    deadline: datetime | None = None
    """When it is overdue, or sent again; None: never."""
    resting: bool = False
    """Whether the last attempt failed, and the next one comes at the deadline."""
    sent: int = 1
    """How many times its command was sent in all."""
    heard: tuple[UUID, ...] = ()
    """The events for which it is sent again, by their ids: heard once more, they are no further attempts."""


@dataclass(frozen=True, slots=True)
class SagaInstance:
    """The state of one saga."""

    status: SagaStatus = SagaStatus.NONE
    version: int = 0
    trigger: StoredMessage = None
    steps: tuple[StepState, ...] = ()
    awaited: tuple[Awaited, ...] = ()
    """The answers that are awaited: several only while steps run in parallel."""
    happened: tuple[int, ...] = ()
    """The steps that are done or skipped, in the order in which they were."""
    replies: dict[str, PackedMessage] = field(default_factory=dict, hash=False)
    """By the name of a step, the event that answered it with success, as the bytes of a google.protobuf.Any; the
    context has them unpacked."""
    early: dict[str, PackedMessage] = field(default_factory=dict, hash=False)
    """By the name of a step that waits for a signal, the answer that came before it has begun, as
    the bytes of a google.protobuf.Any."""
    reason: str = ""
    refusal: StoredMessage = None
    interrupted: bool = False
    needs_attention: bool = False
    aborted: bool = False

    @property
    def current(self) -> int | None:
        """The first step whose answer is awaited; ``len(steps)`` for the closing command; None: none is awaited."""
        return self.awaited[0].step if self.awaited else None

    @property
    def attempts(self) -> int:
        """How many times the command of :attr:`current` was sent; 0 where nothing is awaited."""
        return self.awaited[0].attempts if self.awaited else 0

    @property
    def deadline(self) -> datetime | None:
        """When the first of the awaited answers is overdue; None: never."""
        if len(self.awaited) <= 1:
            return self.awaited[0].deadline if self.awaited else None
        return min((each.deadline for each in self.awaited if each.deadline), default=None)

    @property
    def context(self) -> SagaContext:
        """What its commands are made of when they are first sent, and what conditions are asked with."""
        return self.context_of(1)

    def context_of(self, attempt: int) -> SagaContext:
        """What its commands are made of when they are sent for the ``attempt``-th time."""
        return SagaContext(
            self.trigger, self.reason, self.refusal, self.aborted, Replies(self.replies), attempt
        )


# --- commands ----------------------------------------------------------------------------------------------

_ORDER: Forms = {"reason": TEXT, "now": MOMENT}
_ORDER_OF_A_STEP: Forms = {**_ORDER, "step": TEXT}
_HEARD: Forms = {
    "event": one(Message, "a message, such as an event that a rule is given"),
    "now": MOMENT,
    "event_id": optional(one(UUID, "the UUID of an event")),
}
_BEGUN: Forms = {part: _HEARD[part] for part in ("event", "now")}


@dataclass(frozen=True, slots=True)
class Begin:
    """The saga's trigger has happened."""

    event: Message
    now: datetime

    def __post_init__(self) -> None:
        event, now = self.event, self.now
        if not isinstance(event, Message) or not isinstance(now, datetime) or now.tzinfo is None:
            refuse_value("Begin", self, _BEGUN)


@dataclass(frozen=True, slots=True)
class Reply:
    """A participant's event has come: the awaited answer, an interruption, or one of no concern."""

    event: Message
    now: datetime
    event_id: UUID | None = None
    """Which event of a log it is, where it is one; a consumer of policies fills it in."""

    def __post_init__(self) -> None:
        # Looked at part by part only where one is wrong: there is one for each event that a saga hears.
        event, now, known = self.event, self.now, self.event_id is None or isinstance(self.event_id, UUID)
        if not known or not isinstance(event, Message) or not isinstance(now, datetime) or now.tzinfo is None:
            refuse_value("Reply", self, _HEARD)


@dataclass(frozen=True, slots=True)
class Wake:
    """A time has come: an answer is overdue, a command is to be sent again, or a step has lasted long enough."""

    now: datetime


@dataclass(frozen=True, slots=True)
class Retry:
    """An operator has the awaited command sent again."""

    reason: str
    now: datetime
    step: str = ""
    """The name of the step, where several are awaited; empty: each."""

    def __post_init__(self) -> None:
        refuse_value("Retry", self, _ORDER_OF_A_STEP)


@dataclass(frozen=True, slots=True)
class Skip:
    """An operator has the saga go on without the awaited answer."""

    reason: str
    now: datetime
    step: str = ""
    """The name of the step, where several are awaited; empty: the only one."""

    def __post_init__(self) -> None:
        refuse_value("Skip", self, _ORDER_OF_A_STEP)


@dataclass(frozen=True, slots=True)
class Abort:
    """An operator has the saga compensated."""

    reason: str
    now: datetime

    def __post_init__(self) -> None:
        refuse_value("Abort", self, _ORDER)


Command = Begin | Reply | Wake | Retry | Skip | Abort
