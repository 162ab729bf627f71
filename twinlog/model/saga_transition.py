"""The pure transition that runs a saga: what state follows from an event, and what commands that state sends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from twinlog.model.aggregate import Aggregate, Events
from twinlog.model.errors import FailedPrecondition
from twinlog.model.messages import pack, unpack
from twinlog.model.saga import (
    TIMED_OUT,
    Abort,
    Begin,
    Command,
    Reply,
    Retry,
    Saga,
    SagaInstance,
    SagaStatus,
    Skip,
    StepState,
    Wake,
)
from twinlog.model.times import timestamp
from twinlog.v1 import saga_pb2 as pb

_MAY_HAVE_HAPPENED = frozenset(
    {StepState.RUNNING, StepState.DONE, StepState.TIMED_OUT, StepState.COMPENSATING, StepState.SKIPPED}
)


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


def saga_aggregate(*versions: Saga) -> Aggregate[SagaInstance, Command]:
    """The aggregate of a saga's instances; give every version that still has instances, the newest last."""
    tables = {saga.version: _Table(saga) for saga in versions}
    newest = tables[max(tables)]

    def table(instance: SagaInstance) -> _Table:
        return tables.get(instance.version, newest)

    def evolve(instance: SagaInstance, event: Message) -> SagaInstance:
        if isinstance(event, pb.SagaStarted):
            return tables[event.version].evolve(instance, event)
        return table(instance).evolve(instance, event)

    return Aggregate(
        name=f"{newest.saga.name}_saga",
        initial=SagaInstance(),
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

    def decide(self, instance: SagaInstance, command: Command) -> Events:
        match command:
            case Begin(event, now) if instance.status is SagaStatus.NONE:
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

    def _intervene(self, instance: SagaInstance, command: Retry | Skip | Abort) -> Events:
        current, status = instance.current, instance.status
        if current is None:
            raise NothingAwaited(status=status)
        match command:
            case Retry(reason, now):
                return self._and_then(instance, pb.SagaRetryRequested(step=current, reason=reason), now)
            case Skip(reason, now):
                return self._and_then(instance, pb.SagaStepSkipped(step=current, reason=reason), now)
        if status is not SagaStatus.RUNNING:
            raise NotAbortable(status=status)
        for step, state in zip(self.saga.steps, instance.steps, strict=True):
            if state in _MAY_HAVE_HAPPENED and not step.undo:
                raise NotUndoable(step=step.name)
        return self._and_then(instance, pb.SagaAborted(reason=command.reason), command.now)

    def _begin(self, instance: SagaInstance, event: Message, now: datetime) -> Events:
        started = pb.SagaStarted(saga=self.saga.name, version=self.saga.version, trigger=pack(event))
        return self._and_then(instance, started, now)

    def _reply(self, instance: SagaInstance, current: int, event: Message, now: datetime) -> Events:
        if instance.status is SagaStatus.COMPENSATING:
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

    def _undone(self, instance: SagaInstance, current: int, event: Message, now: datetime) -> Events:
        if current == self.closing:
            closing = self.saga.on_compensated
            return [self._compensated(instance)] if closing and isinstance(event, closing.done) else []
        step = self.saga.steps[current]
        answers = tuple(answer for answer in (step.undone, step.refused) if answer)
        if isinstance(event, answers):  # a step that is refused while it is being undone never happened
            return self._and_then(instance, pb.SagaStepCompensated(step=current), now)
        return []

    def _interrupts(self, instance: SagaInstance, event: Message) -> bool:
        if type(event) not in self.saga.interrupted_by or instance.interrupted:
            return False
        if instance.status in (SagaStatus.NONE, SagaStatus.COMPENSATED):
            return False
        closing = self.saga.on_compensated
        return not (closing and instance.current == self.closing and isinstance(event, closing.done))

    def _interrupt(self, instance: SagaInstance, event: Message, now: datetime) -> Events:
        interrupted = pb.SagaInterrupted(reason=self.saga.interrupted_by[type(event)](event))
        if instance.status is SagaStatus.COMPENSATING and instance.current != self.closing:
            if instance.deadline:
                interrupted.deadline.CopyFrom(timestamp(instance.deadline))
            return [interrupted]
        return self._and_then(instance, interrupted, now)

    def _wake(self, instance: SagaInstance, now: datetime) -> Events:
        assert instance.current is not None
        step, attempt = instance.current, instance.attempts + 1
        if instance.status is SagaStatus.RUNNING and instance.attempts > self.saga.steps[step].retries:
            return self._and_then(
                instance, pb.SagaStepFailed(step=step, reason=TIMED_OUT, timed_out=True), now
            )
        events = list(self._and_then(instance, pb.SagaCommandRetried(step=step, attempt=attempt), now))
        if (
            instance.status is SagaStatus.COMPENSATING
            and instance.attempts == self.saga.backoff.attention_after
        ):
            events.insert(0, pb.SagaNeedsAttention(step=step, attempts=instance.attempts))
        return events

    def _and_then(self, instance: SagaInstance, event: Any, now: datetime) -> Events:
        """The event and what follows from it: the next command, or the end."""
        after = self.evolve(instance, event)
        if after.current is None:
            ending = pb.SagaCompleted() if after.status is SagaStatus.RUNNING else self._compensated(after)
            return [event, ending]
        deadline = self._deadline(after, after.current, now)
        if deadline:
            event.deadline.CopyFrom(timestamp(deadline))
        return [event, self._command(after, after.current)]

    def _command(self, instance: SagaInstance, current: int) -> Message:
        if current == self.closing:
            assert self.saga.on_compensated is not None
            return self.saga.on_compensated.send(instance.context)
        step = self.saga.steps[current]
        if instance.status is SagaStatus.RUNNING:
            return step.send(instance.context)
        assert step.undo is not None
        return step.undo(instance.context)

    def _deadline(self, instance: SagaInstance, current: int, now: datetime) -> datetime | None:
        if instance.status is SagaStatus.COMPENSATING:
            return now + self.saga.backoff.delay(instance.attempts)
        allowed = self.saga.steps[current].deadline
        if callable(allowed):
            return allowed(instance.trigger)
        return now + allowed if allowed else None

    def _compensated(self, instance: SagaInstance) -> pb.SagaCompensated:
        return pb.SagaCompensated(reason=instance.reason)

    def evolve(self, instance: SagaInstance, event: Message) -> SagaInstance:
        match event:
            case pb.SagaStarted():
                steps = (StepState.RUNNING, *[StepState.WAITING] * (self.closing - 1))
                trigger = unpack(event.trigger)
                return SagaInstance(
                    SagaStatus.RUNNING, event.version, trigger, steps, 0, 1, _deadline_of(event)
                )
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
                return replace(
                    instance, status=SagaStatus.COMPLETED, steps=steps, current=None, deadline=None
                )
            case pb.SagaCompensated():
                return replace(
                    instance,
                    status=SagaStatus.COMPENSATED,
                    current=None,
                    deadline=None,
                    needs_attention=False,
                )
        return self._intervened(instance, event)

    def _intervened(self, instance: SagaInstance, event: Message) -> SagaInstance:
        match event:
            case pb.SagaRetryRequested():
                return replace(instance, attempts=1, deadline=_deadline_of(event), needs_attention=False)
            case pb.SagaStepSkipped():
                return self._skipped(instance, event)
            case pb.SagaAborted():
                aborted = replace(instance, aborted=True, reason=event.reason)
                return self._undoing(aborted, _deadline_of(event))
        return instance

    def _skipped(self, instance: SagaInstance, event: pb.SagaStepSkipped) -> SagaInstance:
        deadline = _deadline_of(event)
        if event.step == self.closing:
            return replace(instance, current=None, deadline=None)
        if instance.status is SagaStatus.COMPENSATING:
            steps = _with(instance.steps, event.step, StepState.UNDO_SKIPPED)
            return self._undoing(replace(instance, steps=steps), deadline)
        steps = _with(instance.steps, event.step, StepState.SKIPPED)
        if event.step + 1 == self.closing:
            return replace(instance, steps=steps, current=None, deadline=None)
        steps = _with(steps, event.step + 1, StepState.RUNNING)
        return replace(instance, steps=steps, current=event.step + 1, attempts=1, deadline=deadline)

    def _interrupted(self, instance: SagaInstance, event: pb.SagaInterrupted) -> SagaInstance:
        reason = instance.reason or event.reason
        interrupted = replace(instance, interrupted=True, reason=reason)
        if instance.status is SagaStatus.COMPENSATING and instance.current != self.closing:
            return interrupted
        return self._undoing(interrupted, _deadline_of(event))

    def _undoing(self, instance: SagaInstance, deadline: datetime | None) -> SagaInstance:
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
        elif self.saga.on_compensated and not instance.interrupted:
            current = self.closing
        return replace(
            instance,
            status=SagaStatus.COMPENSATING,
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
