"""What happens to a saga: which event a command makes of a state, and what that event's state sends.

:mod:`twinlog.model.saga_evolution` says what state follows, :mod:`twinlog.model.saga_commands` what it sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from twinlog.model.aggregate import Events
from twinlog.model.errors import FailedPrecondition
from twinlog.model.messages import pack
from twinlog.model.saga import (
    TIMED_OUT,
    Abort,
    Awaited,
    Begin,
    Command,
    Reply,
    Retry,
    SagaInstance,
    SagaStatus,
    Skip,
    StepState,
    Wake,
)
from twinlog.model.saga_commands import SagaCommands, Sent, ending
from twinlog.model.saga_evolution import MAY_HAVE_HAPPENED, SagaEvolution
from twinlog.model.saga_step import Replies, Step
from twinlog.model.saga_table import Saga, name_of
from twinlog.model.times import timestamp
from twinlog.v1 import saga_pb2 as pb


class NothingAwaited(FailedPrecondition):
    """The saga is {status} and waits for nothing; only one that is running or compensating can be intervened in."""

    reason = "SAGA_NOTHING_AWAITED"


class StepNotAwaited(FailedPrecondition):
    """The saga does not wait for the step "{step}" at the moment; it waits for {awaited}."""

    reason = "SAGA_STEP_NOT_AWAITED"


class SeveralAwaited(FailedPrecondition):
    """The saga waits for several steps at once: {awaited}; say which one is meant."""

    reason = "SAGA_SEVERAL_AWAITED"


class NothingToSend(FailedPrecondition):
    """{awaited} waits for a time, a person or another signal, so there is no command to send again; skip it instead."""

    reason = "SAGA_NOTHING_TO_SEND"


class NotAbortable(FailedPrecondition):
    """The saga is {status}; only a running one can be aborted. What is being undone can be retried or skipped."""

    reason = "SAGA_NOT_ABORTABLE"


class NotUndoable(FailedPrecondition):
    """The step "{step}" may have happened and cannot be undone; retry it, or skip it, which counts it as done."""

    reason = "SAGA_STEP_NOT_UNDOABLE"


class PastNoReturn(FailedPrecondition):
    """The step "{step}" is the saga's point of no return, and may have happened; retry or skip what is awaited."""

    reason = "SAGA_PAST_NO_RETURN"


class SagaDecider:
    """The decisions of instances that run one version of a saga."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga
        self._closing = len(saga.steps)
        self._commands = SagaCommands(saga)
        self._evolution = SagaEvolution(saga)
        self.evolve = self._evolution.evolve

    def decide(self, instance: SagaInstance, command: Command) -> Events:
        """The events that a command makes; none where it is late, repeated or irrelevant."""
        match command:
            case Begin(event, now) if instance.status is SagaStatus.NONE:
                started = pb.SagaStarted(
                    saga=self._saga.name, version=self._saga.version, trigger=pack(event)
                )
                return self._go_on(self._evolution.started(started, event), started, now)
            case Reply(event, now) if self._interrupts(instance, event):
                return self._interrupt(instance, event, now)
            case Reply(event, now, event_id) if instance.status is SagaStatus.RUNNING:
                return self._reply(instance, event, now, event_id)
            case Reply(event, now) if instance.awaited:
                return self._reply_to_compensation(instance, instance.awaited[0].step, event, now)
            case Wake(now) if instance.deadline is not None and instance.deadline <= now:
                return self._time_has_come(instance, now)
            case Retry() | Skip() | Abort():
                return self._intervene(instance, command)
        return []

    # --- replies ---

    def _reply(
        self, instance: SagaInstance, event: Message, now: datetime, event_id: UUID | None = None
    ) -> Events:
        for awaited in instance.awaited:
            step = self._saga.steps[awaited.step]
            if not isinstance(event, step.answers) or (step.matches and not step.matches(event)):
                continue
            if event_id in awaited.heard:
                return []
            if step.done and isinstance(event, step.done):
                return self._succeeded(instance, awaited, event, now)
            if step.is_transient(event):
                return _naming(event_id, self._failed_for_now(instance, awaited, event, now))
            if step.refused and isinstance(event, step.refused):
                return _naming(event_id, self._refused(instance, awaited, event, now))
        return self._keep(instance, event)

    def _keep(self, instance: SagaInstance, event: Message) -> Events:
        """Keeps the first answer to a step that waits for a signal and is still to begin: it is sent only once."""
        for number, step in enumerate(self._saga.steps):
            if step.send or instance.steps[number] is not StepState.WAITING or step.name in instance.early:
                continue
            if isinstance(event, step.answers) and (step.matches is None or step.matches(event)):
                return [pb.SagaAnswerKept(step=number, answer=pack(event))]
        return []

    def _answer_early(self, instance: SagaInstance, begun: Sequence[int], now: datetime) -> Events:
        """What follows from answers that were there before their steps had begun."""
        events: list[Message] = []
        early = Replies(instance.early)
        for number in begun:
            name = self._saga.steps[number].name
            if name in instance.early and instance.status is SagaStatus.RUNNING:
                for event in self._reply(instance, early[name], now):
                    events.append(event)
                    instance = self.evolve(instance, event)
        return events

    def _succeeded(
        self, instance: SagaInstance, awaited: Awaited, event: Message | None, now: datetime
    ) -> Events:
        done = pb.SagaStepSucceeded(step=awaited.step, reply=pack(event) if event else None)
        return self._go_on(self._evolution.succeeded(instance, done), done, now)

    def _failed_for_now(
        self, instance: SagaInstance, awaited: Awaited, event: Message, now: datetime
    ) -> Events:
        step = self._saga.steps[awaited.step]
        if self._has_to_happen(instance) or awaited.attempts <= step.retries:
            return self._defer(instance, awaited, event, now)
        failed = pb.SagaStepFailed(  # an earlier attempt may yet happen, so it is undone
            step=awaited.step, reason=_why(step, event), timed_out=True, refusal=pack(event)
        )
        return [] if awaited.resting else self._advance(instance, failed, now)

    def _refused(self, instance: SagaInstance, awaited: Awaited, event: Message, now: datetime) -> Events:
        if self._evolution.passed(instance):
            return self._defer(instance, awaited, event, now)
        reason = self._saga.steps[awaited.step].why(event)
        failed = pb.SagaStepFailed(step=awaited.step, reason=reason, refusal=pack(event))
        return self._advance(instance, failed, now)

    def _defer(self, instance: SagaInstance, awaited: Awaited, event: Message, now: datetime) -> Events:
        """The command once more, later; a repeated failure changes nothing."""
        if awaited.resting:
            return []
        step = self._saga.steps[awaited.step]
        due = now + self._commands.backoff(step).delay(awaited.attempts)
        if callable(step.deadline) and not self._has_to_happen(instance):
            due = min(due, step.deadline(instance.trigger))
        deferred = pb.SagaStepDeferred(
            step=awaited.step,
            reason=_why(step, event),
            attempts=awaited.attempts,
            deadline=timestamp(due),
        )
        return [*self._attention(instance, awaited), deferred]

    def _reply_to_compensation(
        self, instance: SagaInstance, current: int, event: Message, now: datetime
    ) -> Events:
        if current == self._closing:
            return [ending(instance)] if self._answers_closing(event) else []
        step = self._saga.steps[current]
        answers = tuple(answer for answer in (step.undone, step.refused) if answer)
        if isinstance(event, answers) and step.matches and not step.matches(event):
            return []
        if isinstance(event, answers) and not step.is_transient(event):
            # A step that is refused while it is being undone never happened.
            return self._advance(instance, pb.SagaStepCompensated(step=current), now)
        return []

    # --- interruptions ---

    def _interrupts(self, instance: SagaInstance, event: Message) -> bool:
        if type(event) not in self._saga.interrupted_by or instance.interrupted:
            return False
        if instance.status in (SagaStatus.NONE, SagaStatus.COMPENSATED) or self._evolution.passed(instance):
            return False
        return not (instance.current == self._closing and self._answers_closing(event))

    def _interrupt(self, instance: SagaInstance, event: Message, now: datetime) -> Events:
        interrupted = pb.SagaInterrupted(reason=self._saga.interrupted_by[type(event)](event))
        undoing = instance.status is SagaStatus.COMPENSATING and instance.current != self._closing
        if undoing or self._evolution.at_pivot(instance):
            if instance.deadline:
                interrupted.deadline.CopyFrom(timestamp(instance.deadline))
            return [interrupted]
        return self._advance(instance, interrupted, now)

    def _answers_closing(self, event: Message) -> bool:
        closing = self._saga.on_compensated
        return closing is not None and closing.done is not None and isinstance(event, closing.done)

    # --- times ---

    def _time_has_come(self, instance: SagaInstance, now: datetime) -> Events:
        """For the first answer that is overdue: the command once more, or the step has failed or lasted long enough."""
        due = [(each.deadline, each) for each in instance.awaited if each.deadline and each.deadline <= now]
        _, awaited = min(due)
        if instance.status is SagaStatus.RUNNING:
            step = self._saga.steps[awaited.step]
            if step.lasts is not None:
                return self._succeeded(instance, awaited, None, now)
            if not self._has_to_happen(instance) and _is_given_up(step, awaited, instance, now):
                failed = pb.SagaStepFailed(step=awaited.step, reason=TIMED_OUT, timed_out=True)
                return self._advance(instance, failed, now)
        retried = pb.SagaCommandRetried(step=awaited.step, attempt=awaited.attempts + 1)
        attention = () if awaited.resting else self._attention(instance, awaited)
        return [*attention, *self._send_again(instance, retried, now)]

    def _attention(self, instance: SagaInstance, awaited: Awaited) -> Events:
        """The threshold's event, where an attempt has failed that is made without limit."""
        without_limit = instance.status is SagaStatus.COMPENSATING or self._has_to_happen(instance)
        if without_limit and awaited.attempts == self._saga.backoff.attention_after:
            return [pb.SagaNeedsAttention(step=awaited.step, attempts=awaited.attempts)]
        return []

    def _has_to_happen(self, instance: SagaInstance) -> bool:
        """Whether what is awaited can no longer be given up."""
        return self._evolution.passed(instance) or self._evolution.at_pivot(instance)

    # --- orders ---

    def _intervene(self, instance: SagaInstance, command: Retry | Skip | Abort) -> Events:
        if not instance.awaited:
            raise NothingAwaited(status=instance.status)
        match command:
            case Retry(reason, now, step):
                return self._retry(instance, self._chosen(instance, step), reason, now)
            case Skip(reason, now, step):
                return self._skip(instance, self._chosen(instance, step), reason, now)
        self._refuse_abort(instance)
        return self._advance(instance, pb.SagaAborted(reason=command.reason), command.now)

    def _retry(self, instance: SagaInstance, chosen: Sequence[Awaited], reason: str, now: datetime) -> Events:
        undoing = instance.status is SagaStatus.COMPENSATING
        sending = [each for each in chosen if undoing or self._saga.steps[each.step].send]
        if not sending:
            raise NothingToSend(awaited=self._names(chosen))
        orders = [pb.SagaRetryRequested(step=each.step, reason=reason) for each in sending]
        return [event for order in orders for event in self._send_again(instance, order, now)]

    def _skip(self, instance: SagaInstance, chosen: Sequence[Awaited], reason: str, now: datetime) -> Events:
        if len(chosen) > 1:
            raise SeveralAwaited(awaited=self._names(chosen))
        skipped = pb.SagaStepSkipped(step=chosen[0].step, reason=reason)
        if instance.status is SagaStatus.RUNNING:
            return self._go_on(self._evolution.succeeded(instance, skipped), skipped, now)
        return self._advance(instance, skipped, now)

    def _refuse_abort(self, instance: SagaInstance) -> None:
        if instance.status is not SagaStatus.RUNNING:
            raise NotAbortable(status=instance.status)
        if self._saga.pivot is not None and self._has_to_happen(instance):
            raise PastNoReturn(step=self._saga.steps[self._saga.pivot].name)
        for step, state in zip(self._saga.steps, instance.steps, strict=True):
            if state in MAY_HAVE_HAPPENED and step.send and not step.undo:
                raise NotUndoable(step=step.name)

    def _chosen(self, instance: SagaInstance, step: str) -> Sequence[Awaited]:
        """What is awaited of a step; of all, where none is named."""
        chosen = [each for each in instance.awaited if step in ("", name_of(self._saga, each.step))]
        if not chosen:
            raise StepNotAwaited(step=step, awaited=self._names(instance.awaited))
        return chosen

    def _names(self, awaited: Sequence[Awaited]) -> str:
        return ", ".join(f'"{name_of(self._saga, each.step)}"' for each in awaited)

    # --- what follows ---

    def _go_on(self, instance: SagaInstance, event: Any, now: datetime) -> Events:
        """The event that brought an instance here, and the steps that begin after it; or the end."""
        following = self._evolution.following(instance)
        while self._saga.has_conditions and (left_out := self._commands.left_out(instance, following)):
            event.left_out.extend(left_out)
            instance = self._evolution.leave_out(instance, left_out)
            following = self._evolution.following(instance)
        if not following and not instance.awaited:
            return self._end(instance, event)
        after = self._evolution.begin(instance, following, event)
        sent = self._commands.sent(after, [each for each in after.awaited if each.step in following], now)
        if len(sent) == 1 and sent[0].deadline:
            event.deadline.CopyFrom(timestamp(sent[0].deadline))
        elif len(sent) > 1:
            event.begun.extend(_begun(each) for each in sent)
        early = self._answer_early(after, following, now) if instance.early else ()
        return [event, *[each.message for each in sent if each.message], *early]

    def _end(self, instance: SagaInstance, event: Any) -> Events:
        if isinstance(event, pb.SagaStepSucceeded) and not event.left_out:
            return [pb.SagaCompleted(reply=event.reply if event.HasField("reply") else None)]
        return [event, ending(instance)]

    def _advance(self, instance: SagaInstance, event: Any, now: datetime) -> Events:
        """The event, and what the state after it sends on the way back."""
        after = self.evolve(instance, event)
        if not after.awaited:
            return [event, ending(after)]
        return _with_command(event, self._commands.sent(after, after.awaited, now))

    def _send_again(self, instance: SagaInstance, event: Any, now: datetime) -> Events:
        """The event, and its step's command."""
        after = self.evolve(instance, event)
        again = [each for each in after.awaited if each.step == event.step]
        return _with_command(event, self._commands.sent(after, again, now))


def _naming(event_id: UUID | None, events: Events) -> Events:
    """What a failure makes; what puts its step off names it, so that it is known when it comes again."""
    if events and event_id and isinstance(deferred := events[-1], pb.SagaStepDeferred):
        deferred.event_id = str(event_id)
    return events


def _with_command(event: Any, sent: Sequence[Sent]) -> Events:
    (only,) = sent
    if only.deadline:
        event.deadline.CopyFrom(timestamp(only.deadline))
    return [event, only.message] if only.message else [event]


def _begun(sent: Sent) -> pb.SagaAwaited:
    return pb.SagaAwaited(step=sent.step, deadline=timestamp(sent.deadline) if sent.deadline else None)


def _is_given_up(step: Step, awaited: Awaited, instance: SagaInstance, now: datetime) -> bool:
    """Whether an overdue step has failed; what rests after a failure has a last attempt, if there is time for it."""
    if awaited.resting:
        return callable(step.deadline) and step.deadline(instance.trigger) <= now
    return awaited.attempts > step.retries


def _why(step: Step, failure: Message) -> str:
    """The reason of a failure, for people."""
    return (
        step.why(failure) if step.refused and isinstance(failure, step.refused) else failure.DESCRIPTOR.name
    )
