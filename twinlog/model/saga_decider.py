"""What happens to a saga: which event a command makes of a state, and what that event's state sends.

:mod:`twinlog.model.saga_evolution` says what state follows, :mod:`twinlog.model.saga_commands` what it sends.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from twinlog.model.aggregate import Events
from twinlog.model.errors import FailedPrecondition
from twinlog.model.messages import pack
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
    Wake,
)
from twinlog.model.saga_commands import SagaCommands, ending
from twinlog.model.saga_evolution import MAY_HAVE_HAPPENED, SagaEvolution
from twinlog.model.times import timestamp
from twinlog.v1 import saga_pb2 as pb


class NothingAwaited(FailedPrecondition):
    """The saga is {status} and waits for nothing; only one that is running or compensating can be intervened in."""

    reason = "SAGA_NOTHING_AWAITED"


class NotAbortable(FailedPrecondition):
    """The saga is {status}; only a running one can be aborted. What is being undone can be retried or skipped."""

    reason = "SAGA_NOT_ABORTABLE"


class NotUndoable(FailedPrecondition):
    """The step "{step}" may have happened and cannot be undone; retry it, or skip it, which counts it as done."""

    reason = "SAGA_STEP_NOT_UNDOABLE"


class SagaDecider:
    """The decisions of instances that run one version of a saga."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga
        self._closing = len(saga.steps)
        self._commands = SagaCommands(saga)
        self.evolve = SagaEvolution(saga).evolve

    def decide(self, instance: SagaInstance, command: Command) -> Events:
        """The events that a command makes; none where it is late, repeated or of no concern."""
        match command:
            case Begin(event, now) if instance.status is SagaStatus.NONE:
                return self._begin(instance, event, now)
            case Reply(event, now) if self._interrupts(instance, event):
                return self._interrupt(instance, event, now)
            case Reply(event, now) if instance.current is not None:
                return self._reply(instance, instance.current, event, now)
            case Wake(now) if instance.deadline is not None and instance.deadline <= now:
                return self._overdue(instance, now)
            case Retry() | Skip() | Abort():
                return self._intervene(instance, command)
        return []

    def _begin(self, instance: SagaInstance, event: Message, now: datetime) -> Events:
        started = pb.SagaStarted(saga=self._saga.name, version=self._saga.version, trigger=pack(event))
        return self._advance(instance, started, now)

    def _reply(self, instance: SagaInstance, current: int, event: Message, now: datetime) -> Events:
        if instance.status is SagaStatus.COMPENSATING:
            return self._reply_to_compensation(instance, current, event, now)
        step = self._saga.steps[current]
        if isinstance(event, step.done):
            if current + 1 == self._closing:
                return [pb.SagaCompleted()]
            return self._advance(instance, pb.SagaStepSucceeded(step=current), now)
        if step.refused and isinstance(event, step.refused):
            failed = pb.SagaStepFailed(step=current, reason=step.why(event), refusal=pack(event))
            return self._advance(instance, failed, now)
        return []

    def _reply_to_compensation(
        self, instance: SagaInstance, current: int, event: Message, now: datetime
    ) -> Events:
        if current == self._closing:
            return [ending(instance)] if self._answers_closing(event) else []
        step = self._saga.steps[current]
        answers = tuple(answer for answer in (step.undone, step.refused) if answer)
        if isinstance(event, answers):  # a step that is refused while it is being undone never happened
            return self._advance(instance, pb.SagaStepCompensated(step=current), now)
        return []

    def _interrupts(self, instance: SagaInstance, event: Message) -> bool:
        if type(event) not in self._saga.interrupted_by or instance.interrupted:
            return False
        if instance.status in (SagaStatus.NONE, SagaStatus.COMPENSATED):
            return False
        return not (instance.current == self._closing and self._answers_closing(event))

    def _interrupt(self, instance: SagaInstance, event: Message, now: datetime) -> Events:
        interrupted = pb.SagaInterrupted(reason=self._saga.interrupted_by[type(event)](event))
        if instance.status is SagaStatus.COMPENSATING and instance.current != self._closing:
            if instance.deadline:
                interrupted.deadline.CopyFrom(timestamp(instance.deadline))
            return [interrupted]
        return self._advance(instance, interrupted, now)

    def _overdue(self, instance: SagaInstance, now: datetime) -> Events:
        """The command once more; or the step has failed, where it was sent often enough."""
        current, attempts = instance.current, instance.attempts
        assert current is not None
        if instance.status is SagaStatus.RUNNING and attempts > self._saga.steps[current].retries:
            failed = pb.SagaStepFailed(step=current, reason=TIMED_OUT, timed_out=True)
            return self._advance(instance, failed, now)
        retried = self._advance(instance, pb.SagaCommandRetried(step=current, attempt=attempts + 1), now)
        if instance.status is SagaStatus.COMPENSATING and attempts == self._saga.backoff.attention_after:
            return [pb.SagaNeedsAttention(step=current, attempts=attempts), *retried]
        return retried

    def _intervene(self, instance: SagaInstance, command: Retry | Skip | Abort) -> Events:
        current, status = instance.current, instance.status
        if current is None:
            raise NothingAwaited(status=status)
        match command:
            case Retry(reason, now):
                return self._advance(instance, pb.SagaRetryRequested(step=current, reason=reason), now)
            case Skip(reason, now):
                return self._advance(instance, pb.SagaStepSkipped(step=current, reason=reason), now)
        if status is not SagaStatus.RUNNING:
            raise NotAbortable(status=status)
        for step, state in zip(self._saga.steps, instance.steps, strict=True):
            if state in MAY_HAVE_HAPPENED and not step.undo:
                raise NotUndoable(step=step.name)
        return self._advance(instance, pb.SagaAborted(reason=command.reason), command.now)

    def _answers_closing(self, event: Message) -> bool:
        closing = self._saga.on_compensated
        return closing is not None and isinstance(event, closing.done)

    def _advance(self, instance: SagaInstance, event: Any, now: datetime) -> Events:
        """The event, and what the state after it sends."""
        sent = self._commands.sent(self.evolve(instance, event), now)
        if sent.deadline:
            event.deadline.CopyFrom(timestamp(sent.deadline))
        return [event, sent.message]
