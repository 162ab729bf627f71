"""What state follows from a saga's event: a pure fold.

Each event also carries the deadlines of the answers that are awaited after it, and the steps whose condition did not
hold: a fold asks no function of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from twinlog.model.changing import changed
from twinlog.model.messages import unpack
from twinlog.model.saga import Awaited, SagaInstance, SagaStatus, StepState
from twinlog.model.saga_table import Saga
from twinlog.model.times import time_of
from twinlog.v1 import saga_pb2 as pb

MAY_HAVE_HAPPENED = frozenset(
    {StepState.RUNNING, StepState.DONE, StepState.TIMED_OUT, StepState.COMPENSATING, StepState.SKIPPED}
)
"""A step in one of these has to be compensated."""
_UNANSWERED = (StepState.RUNNING, StepState.TIMED_OUT, StepState.COMPENSATING)

_NEW = SagaInstance()
"""All instances share what they have none of yet."""
_SHARED_TUPLES = 1_000
"""Thousands of instances are in memory, and most of them stand in one of few ways."""

GoesOn = pb.SagaStarted | pb.SagaStepSucceeded | pb.SagaStepSkipped
"""After one of these the next steps may begin."""


class SagaEvolution:
    """The fold of instances that run one version of a saga."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga
        self._closing = len(saga.steps)

    def evolve(self, instance: SagaInstance, event: Message) -> SagaInstance:
        """The state after an event."""
        match event:
            case pb.SagaStarted():
                return self.go_on(self.started(event), event)
            case pb.SagaStepSucceeded():
                return self.go_on(self.succeeded(instance, event), event)
            case pb.SagaAnswerKept():
                name = self._saga.steps[event.step].name
                return changed(instance, early={**instance.early, name: event.answer.SerializeToString()})
            case pb.SagaStepFailed():
                return self._failed(instance, event)
            case pb.SagaInterrupted():
                return self._interrupted(instance, event)
            case pb.SagaStepCompensated():
                steps = _with(instance.steps, event.step, StepState.COMPENSATED)
                return self._compensate_next(changed(instance, steps=steps), _deadline(event))
            case pb.SagaCompleted():
                return self._completed(instance, event)
            case pb.SagaCompensated():
                return changed(_at_rest(instance), status=SagaStatus.COMPENSATED, needs_attention=False)
        return self._again(instance, event)

    def started(self, event: pb.SagaStarted, trigger: Message | None = None) -> SagaInstance:
        """An instance that has not begun any step; ``trigger`` spares unpacking the event's."""
        steps = (StepState.WAITING,) * self._closing
        return changed(
            _NEW,
            status=SagaStatus.RUNNING,
            version=event.version,
            trigger=trigger or unpack(event.trigger),
            steps=steps,
        )

    def succeeded(
        self, instance: SagaInstance, event: pb.SagaStepSucceeded | pb.SagaStepSkipped
    ) -> SagaInstance:
        """The state with a step that counts as done, before anything else begins."""
        if isinstance(event, pb.SagaStepSkipped):
            return self._done(instance, event.step, StepState.SKIPPED, b"")
        return self._done(instance, event.step, StepState.DONE, _reply(event))

    def following(self, instance: SagaInstance) -> Sequence[int]:
        """The steps that begin next; none while others are awaited, or where all have had their turn."""
        if instance.awaited:
            return ()
        for group in self._saga.groups:
            if waiting := [number for number in group if instance.steps[number] is StepState.WAITING]:
                return waiting
        return ()

    def leave_out(self, instance: SagaInstance, steps: Iterable[int]) -> SagaInstance:
        """The state once steps whose condition fails are left out."""
        states = instance.steps
        for number in steps:
            states = _with(states, number, StepState.LEFT_OUT)
        return changed(instance, steps=states)

    def go_on(self, instance: SagaInstance, event: GoesOn) -> SagaInstance:
        """The state with the next steps begun, where none of the last group is awaited any more."""
        if event.left_out:
            instance = self.leave_out(instance, event.left_out)
        return self.begin(instance, self.following(instance), event)

    def begin(self, instance: SagaInstance, following: Sequence[int], event: GoesOn) -> SagaInstance:
        """The state with some steps begun."""
        if not following:
            return instance
        if len(following) == 1:
            steps = _with(instance.steps, following[0], StepState.RUNNING)
            return changed(instance, steps=steps, awaited=(Awaited(following[0], 1, _deadline(event)),))
        steps, deadlines = instance.steps, {each.step: _deadline(each) for each in event.begun}
        for number in following:
            steps = _with(steps, number, StepState.RUNNING)
        awaited = [Awaited(number, 1, deadlines.get(number)) for number in following]
        return changed(instance, steps=steps, awaited=tuple(awaited))

    def passed(self, instance: SagaInstance) -> bool:
        """Whether the point of no return is passed."""
        pivot = self._saga.pivot
        return pivot is not None and instance.steps[pivot] in (StepState.DONE, StepState.SKIPPED)

    def at_pivot(self, instance: SagaInstance) -> bool:
        """Whether the answer of the point of no return is awaited, and decides the way."""
        return instance.status is SagaStatus.RUNNING and instance.current == self._saga.pivot is not None

    def to_undo(self, instance: SagaInstance) -> Sequence[int]:
        """The steps that are to be compensated, in that order: first what may still happen, then what happened last."""
        under_way = [
            number
            for number, state in enumerate(instance.steps)
            if state in _UNANSWERED and number not in instance.happened
        ]
        order = (*reversed(under_way), *reversed(instance.happened))
        return [
            number
            for number in order
            if self._saga.steps[number].undo and instance.steps[number] in MAY_HAVE_HAPPENED
        ]

    def _again(self, instance: SagaInstance, event: Message) -> SagaInstance:
        """After what did not bring it on, or an operator ordered."""
        match event:
            case pb.SagaStepDeferred():
                return _put_off(instance, event)
            case pb.SagaCommandRetried():
                return _sent_again(instance, event, event.attempt)
            case pb.SagaNeedsAttention():
                return changed(instance, needs_attention=True)
            case pb.SagaRetryRequested():
                calm = changed(instance, needs_attention=False)
                return _sent_again(calm, event, 1)
            case pb.SagaStepSkipped():
                return self._skipped(instance, event)
            case pb.SagaAborted():
                aborted = changed(instance, aborted=True, reason=event.reason)
                return self._compensate_next(aborted, _deadline(event))
        return instance

    def _done(self, instance: SagaInstance, number: int, state: StepState, reply: bytes) -> SagaInstance:
        pivotal = number == self._saga.pivot
        return changed(
            instance,
            steps=_with(instance.steps, number, state),
            awaited=tuple([each for each in instance.awaited if each.step != number]),
            happened=_and(instance.happened, number),
            replies={**instance.replies, self._saga.steps[number].name: reply} if reply else instance.replies,
            needs_attention=False,
            interrupted=instance.interrupted and not pivotal,  # what interrupted it came too late
            reason="" if pivotal else instance.reason,
        )

    def _failed(self, instance: SagaInstance, event: pb.SagaStepFailed) -> SagaInstance:
        state = StepState.TIMED_OUT if event.timed_out else StepState.REFUSED
        refusal = unpack(event.refusal) if event.HasField("refusal") else None
        steps = _with(instance.steps, event.step, state)
        failed = changed(instance, steps=steps, reason=instance.reason or event.reason, refusal=refusal)
        return self._compensate_next(failed, _deadline(event))

    def _interrupted(self, instance: SagaInstance, event: pb.SagaInterrupted) -> SagaInstance:
        undoing = instance.status is SagaStatus.COMPENSATING and instance.current != self._closing
        interrupted = changed(instance, interrupted=True, reason=instance.reason or event.reason)
        if undoing or self.at_pivot(instance):
            return interrupted
        return self._compensate_next(interrupted, _deadline(event))

    def _completed(self, instance: SagaInstance, event: pb.SagaCompleted) -> SagaInstance:
        for each in instance.awaited:  # the last one, whose answer it is
            instance = self._done(instance, each.step, StepState.DONE, _reply(event))
        return changed(instance, status=SagaStatus.COMPLETED)

    def _skipped(self, instance: SagaInstance, event: pb.SagaStepSkipped) -> SagaInstance:
        if event.step == self._closing:
            return _at_rest(instance)
        if instance.status is SagaStatus.COMPENSATING:
            steps = _with(instance.steps, event.step, StepState.UNDO_SKIPPED)
            return self._compensate_next(changed(instance, steps=steps), _deadline(event))
        return self.go_on(self.succeeded(instance, event), event)

    def _compensate_next(self, instance: SagaInstance, deadline: datetime | None) -> SagaInstance:
        """Turns to the last step that is still to be compensated; after those, to the closing command."""
        current = next(iter(self.to_undo(instance)), None)
        steps = instance.steps
        if current is not None:
            steps = _with(steps, current, StepState.COMPENSATING)
        elif self._saga.on_compensated and not instance.interrupted:
            current = self._closing
        return changed(
            instance,
            status=SagaStatus.COMPENSATING,
            steps=steps,
            awaited=() if current is None else (Awaited(current, 1, deadline),),
            needs_attention=False,
        )


def _at_rest(instance: SagaInstance) -> SagaInstance:
    return changed(instance, awaited=())


def _put_off(instance: SagaInstance, event: pb.SagaStepDeferred) -> SagaInstance:
    heard = (UUID(event.event_id),) if event.event_id else ()
    return _awaiting(
        instance,
        event.step,
        lambda each: each._replace(
            attempts=event.attempts, deadline=_deadline(event), resting=True, heard=each.heard + heard
        ),
    )


def _sent_again(
    instance: SagaInstance, event: pb.SagaCommandRetried | pb.SagaRetryRequested, attempts: int
) -> SagaInstance:
    return _awaiting(
        instance,
        event.step,
        lambda each: each._replace(
            attempts=attempts, deadline=_deadline(event), resting=False, sent=each.sent + 1
        ),
    )


def _awaiting(instance: SagaInstance, step: int, anew: Callable[[Awaited], Awaited]) -> SagaInstance:
    awaited = tuple(anew(each) if each.step == step else each for each in instance.awaited)
    return changed(instance, awaited=awaited)


@lru_cache(_SHARED_TUPLES)
def _and(happened: tuple[int, ...], number: int) -> tuple[int, ...]:
    return (*happened, number)


@lru_cache(_SHARED_TUPLES)
def _with(steps: tuple[StepState, ...], number: int, state: StepState) -> tuple[StepState, ...]:
    return (*steps[:number], state, *steps[number + 1 :])


def _reply(event: pb.SagaStepSucceeded | pb.SagaCompleted) -> bytes:
    return event.reply.SerializeToString()


def _deadline(event: Any) -> datetime | None:
    return time_of(event.deadline) if event.HasField("deadline") else None
