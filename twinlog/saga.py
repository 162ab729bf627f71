"""Sagas: a table of steps with their compensations, and the pure transition that runs it.

An instance is an aggregate like any other: replies, interruptions, deadlines and operators' orders are its commands;
its events are twinlog.v1.Saga… with the commands to participants between them. Compensations run in reverse order
and are retried without limit; past a threshold the instance shows that it needs attention.
(Garcia-Molina and Salem, "Sagas", 1987.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from google.protobuf.message import Message

from twinlog.decider import Aggregate, Events
from twinlog.errors import FailedPrecondition
from twinlog.packed import StoredMessage, pack, unpack
from twinlog.times import timestamp
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
class Facts:
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
    send: Callable[[Facts], Message]
    done: type[Message]
    refused: type[Message] | None = None
    why: Callable[[Any], str] = lambda refusal: str(refusal.DESCRIPTOR.name)
    """From the refusal: the reason, for people."""
    undo: Callable[[Facts], Message] | None = None
    undone: type[Message] | None = None
    deadline: timedelta | Callable[[Any], datetime] | None = None
    """How long an answer may take, or, from the trigger, until when; None: for ever, for a step that must happen in
    the end."""
    retries: int = 0
    """How often the command is sent again at its deadline before the step is given up."""


@dataclass(frozen=True)
class Closing:
    """The command that tells of a saga that was undone."""

    send: Callable[[Facts], Message]
    done: type[Message]


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
    when_undone: Closing | None = None
    interrupted_by: Mapping[type[Message], Callable[[Any], str]] = field(default_factory=dict)
    """Events after which the saga undoes what it did, even when it is completed, and sends no closing command; from
    each: the reason, for people. One that answers the closing command is that answer."""
    backoff: Backoff = Backoff()


# --- state -------------------------------------------------------------------------------------------------


class Status(StrEnum):
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


_MAY_HAVE_HAPPENED = frozenset(
    {StepState.RUNNING, StepState.DONE, StepState.TIMED_OUT, StepState.COMPENSATING, StepState.SKIPPED}
)


@dataclass(frozen=True, slots=True)
class Instance:
    """The state of one saga."""

    status: Status = Status.NONE
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
    def facts(self) -> Facts:
        """What its commands are made from."""
        return Facts(self.trigger, self.reason, self.refusal, self.aborted)


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


class NothingAwaited(FailedPrecondition):
    """The saga is {status} and waits for nothing; only one that is running or compensating can be intervened in."""

    reason = "SAGA_NOTHING_AWAITED"


class NotAbortable(FailedPrecondition):
    """The saga is {status}; only a running one can be aborted. What is being undone can be retried or skipped."""

    reason = "SAGA_NOT_ABORTABLE"


class NotUndoable(FailedPrecondition):
    """The step "{step}" may have happened and cannot be undone; retry it, or skip it, which counts it as done."""

    reason = "SAGA_STEP_NOT_UNDOABLE"


# --- the transition ----------------------------------------------------------------------------------------


def aggregate(*versions: Saga) -> Aggregate[Instance, Command]:
    """The aggregate of a saga's instances; give every version that still has instances, the newest last."""
    tables = {saga.version: _Table(saga) for saga in versions}
    newest = tables[max(tables)]

    def table(instance: Instance) -> _Table:
        return tables.get(instance.version, newest)

    def evolve(instance: Instance, event: Message) -> Instance:
        if isinstance(event, pb.SagaStarted):
            return tables[event.version].evolve(instance, event)
        return table(instance).evolve(instance, event)

    return Aggregate(
        name=f"{newest.saga.name}_saga",
        initial=Instance(),
        decide=lambda instance, command: table(instance).decide(instance, command),
        evolve=evolve,
        partition_key=lambda instance: newest.saga.partition_key(instance.trigger),
        due=lambda instance: instance.deadline,
        on_due=lambda _instance, now: Wake(now),
    )


@dataclass(frozen=True)
class _Table:
    """One version's transition."""

    saga: Saga
    closing: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "closing", len(self.saga.steps))

    def decide(self, instance: Instance, command: Command) -> Events:
        match command:
            case Begin(event, now) if instance.status is Status.NONE:
                return self._begin(instance, event, now)
            case Reply(event, now) if self._interrupts(instance, event):
                return self._interrupt(instance, event, now)
            case Reply(event, now) if instance.current is not None:
                return self._reply(instance, instance.current, event, now)
            case Wake(now) if instance.deadline is not None and instance.deadline <= now:
                return self._wake(instance, now)
            case Retry() | Skip() | Abort():
                return self._intervene(instance, command)
        return []

    def _intervene(self, instance: Instance, command: Retry | Skip | Abort) -> Events:
        current, status = instance.current, instance.status
        if current is None:
            raise NothingAwaited(status=status)
        match command:
            case Retry(reason, now):
                return self._and_then(instance, pb.SagaRetryRequested(step=current, reason=reason), now)
            case Skip(reason, now):
                return self._and_then(instance, pb.SagaStepSkipped(step=current, reason=reason), now)
        if status is not Status.RUNNING:
            raise NotAbortable(status=status)
        for step, state in zip(self.saga.steps, instance.steps, strict=True):
            if state in _MAY_HAVE_HAPPENED and not step.undo:
                raise NotUndoable(step=step.name)
        return self._and_then(instance, pb.SagaAborted(reason=command.reason), command.now)

    def _begin(self, instance: Instance, event: Message, now: datetime) -> Events:
        started = pb.SagaStarted(saga=self.saga.name, version=self.saga.version, trigger=pack(event))
        return self._and_then(instance, started, now)

    def _reply(self, instance: Instance, current: int, event: Message, now: datetime) -> Events:
        if instance.status is Status.COMPENSATING:
            return self._undone(instance, current, event, now)
        step = self.saga.steps[current]
        if isinstance(event, step.done):
            if current + 1 == self.closing:
                return [pb.SagaCompleted()]
            return self._and_then(instance, pb.SagaStepSucceeded(step=current), now)
        if step.refused and isinstance(event, step.refused):
            failed = pb.SagaStepFailed(step=current, reason=step.why(event), refusal=pack(event))
            return self._and_then(instance, failed, now)
        return []

    def _undone(self, instance: Instance, current: int, event: Message, now: datetime) -> Events:
        if current == self.closing:
            closing = self.saga.when_undone
            return [self._compensated(instance)] if closing and isinstance(event, closing.done) else []
        step = self.saga.steps[current]
        answers = tuple(answer for answer in (step.undone, step.refused) if answer)
        if isinstance(event, answers):  # a step that is refused while it is being undone never happened
            return self._and_then(instance, pb.SagaStepCompensated(step=current), now)
        return []

    def _interrupts(self, instance: Instance, event: Message) -> bool:
        if type(event) not in self.saga.interrupted_by or instance.interrupted:
            return False
        if instance.status in (Status.NONE, Status.COMPENSATED):
            return False
        closing = self.saga.when_undone
        return not (closing and instance.current == self.closing and isinstance(event, closing.done))

    def _interrupt(self, instance: Instance, event: Message, now: datetime) -> Events:
        interrupted = pb.SagaInterrupted(reason=self.saga.interrupted_by[type(event)](event))
        if instance.status is Status.COMPENSATING and instance.current != self.closing:
            if instance.deadline:
                interrupted.deadline.CopyFrom(timestamp(instance.deadline))
            return [interrupted]
        return self._and_then(instance, interrupted, now)

    def _wake(self, instance: Instance, now: datetime) -> Events:
        assert instance.current is not None
        step, attempt = instance.current, instance.attempts + 1
        if instance.status is Status.RUNNING and instance.attempts > self.saga.steps[step].retries:
            return self._and_then(
                instance, pb.SagaStepFailed(step=step, reason=TIMED_OUT, timed_out=True), now
            )
        events = list(self._and_then(instance, pb.SagaCommandRetried(step=step, attempt=attempt), now))
        if instance.status is Status.COMPENSATING and instance.attempts == self.saga.backoff.attention_after:
            events.insert(0, pb.SagaNeedsAttention(step=step, attempts=instance.attempts))
        return events

    def _and_then(self, instance: Instance, event: Any, now: datetime) -> Events:
        """The event and what follows from it: the next command, or the end."""
        after = self.evolve(instance, event)
        if after.current is None:
            ending = pb.SagaCompleted() if after.status is Status.RUNNING else self._compensated(after)
            return [event, ending]
        deadline = self._deadline(after, after.current, now)
        if deadline:
            event.deadline.CopyFrom(timestamp(deadline))
        return [event, self._command(after, after.current)]

    def _command(self, instance: Instance, current: int) -> Message:
        if current == self.closing:
            assert self.saga.when_undone is not None
            return self.saga.when_undone.send(instance.facts)
        step = self.saga.steps[current]
        if instance.status is Status.RUNNING:
            return step.send(instance.facts)
        assert step.undo is not None
        return step.undo(instance.facts)

    def _deadline(self, instance: Instance, current: int, now: datetime) -> datetime | None:
        if instance.status is Status.COMPENSATING:
            return now + self.saga.backoff.delay(instance.attempts)
        allowed = self.saga.steps[current].deadline
        if callable(allowed):
            return allowed(instance.trigger)
        return now + allowed if allowed else None

    def _compensated(self, instance: Instance) -> pb.SagaCompensated:
        return pb.SagaCompensated(reason=instance.reason)

    def evolve(self, instance: Instance, event: Message) -> Instance:
        match event:
            case pb.SagaStarted():
                steps = (StepState.RUNNING, *[StepState.WAITING] * (self.closing - 1))
                trigger = unpack(event.trigger)
                return Instance(Status.RUNNING, event.version, trigger, steps, 0, 1, _deadline_of(event))
            case pb.SagaStepSucceeded():
                steps = _with(instance.steps, event.step, StepState.DONE)
                steps = _with(steps, event.step + 1, StepState.RUNNING)
                return replace(
                    instance, steps=steps, current=event.step + 1, attempts=1, deadline=_deadline_of(event)
                )
            case pb.SagaStepFailed():
                state = StepState.TIMED_OUT if event.timed_out else StepState.REFUSED
                refusal = None if event.timed_out else unpack(event.refusal)
                failed = replace(
                    instance,
                    steps=_with(instance.steps, event.step, state),
                    reason=event.reason,
                    refusal=refusal,
                )
                return self._undoing(failed, _deadline_of(event))
            case pb.SagaInterrupted():
                return self._interrupted(instance, event)
            case pb.SagaStepCompensated():
                steps = _with(instance.steps, event.step, StepState.COMPENSATED)
                return self._undoing(replace(instance, steps=steps), _deadline_of(event))
            case pb.SagaCommandRetried():
                return replace(instance, attempts=event.attempt, deadline=_deadline_of(event))
            case pb.SagaNeedsAttention():
                return replace(instance, needs_attention=True)
            case pb.SagaCompleted():
                steps = instance.steps
                if steps[-1] is not StepState.SKIPPED:
                    steps = _with(steps, self.closing - 1, StepState.DONE)
                return replace(instance, status=Status.COMPLETED, steps=steps, current=None, deadline=None)
            case pb.SagaCompensated():
                return replace(
                    instance, status=Status.COMPENSATED, current=None, deadline=None, needs_attention=False
                )
        return self._intervened(instance, event)

    def _intervened(self, instance: Instance, event: Message) -> Instance:
        match event:
            case pb.SagaRetryRequested():
                return replace(instance, attempts=1, deadline=_deadline_of(event), needs_attention=False)
            case pb.SagaStepSkipped():
                return self._skipped(instance, event)
            case pb.SagaAborted():
                aborted = replace(instance, aborted=True, reason=event.reason)
                return self._undoing(aborted, _deadline_of(event))
        return instance

    def _skipped(self, instance: Instance, event: pb.SagaStepSkipped) -> Instance:
        deadline = _deadline_of(event)
        if event.step == self.closing:
            return replace(instance, current=None, deadline=None)
        if instance.status is Status.COMPENSATING:
            steps = _with(instance.steps, event.step, StepState.UNDO_SKIPPED)
            return self._undoing(replace(instance, steps=steps), deadline)
        steps = _with(instance.steps, event.step, StepState.SKIPPED)
        if event.step + 1 == self.closing:
            return replace(instance, steps=steps, current=None, deadline=None)
        steps = _with(steps, event.step + 1, StepState.RUNNING)
        return replace(instance, steps=steps, current=event.step + 1, attempts=1, deadline=deadline)

    def _interrupted(self, instance: Instance, event: pb.SagaInterrupted) -> Instance:
        reason = instance.reason or event.reason
        interrupted = replace(instance, interrupted=True, reason=reason)
        if instance.status is Status.COMPENSATING and instance.current != self.closing:
            return interrupted
        return self._undoing(interrupted, _deadline_of(event))

    def _undoing(self, instance: Instance, deadline: datetime | None) -> Instance:
        """Turns to the last step that may have happened and can be undone; after those, to the closing command."""
        undoable = [
            number
            for number, (step, state) in enumerate(zip(self.saga.steps, instance.steps, strict=True))
            if step.undo and state in _MAY_HAVE_HAPPENED
        ]
        current, steps = None, instance.steps
        if undoable:
            current = undoable[-1]
            steps = _with(steps, current, StepState.COMPENSATING)
        elif self.saga.when_undone and not instance.interrupted:
            current = self.closing
        return replace(
            instance,
            status=Status.COMPENSATING,
            steps=steps,
            current=current,
            attempts=1,
            deadline=deadline,
            needs_attention=False,
        )


def _with(steps: tuple[StepState, ...], number: int, state: StepState) -> tuple[StepState, ...]:
    return (*steps[:number], state, *steps[number + 1 :])


def _deadline_of(event: Any) -> datetime | None:
    return event.deadline.ToDatetime(UTC) if event.HasField("deadline") else None
