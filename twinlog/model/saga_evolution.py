"""What state follows from a saga's event: a pure fold.

Each event also carries the deadline of the answer that is awaited after it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from twinlog.model.messages import unpack
from twinlog.model.saga import Saga, SagaInstance, SagaStatus, StepState
from twinlog.v1 import saga_pb2 as pb

MAY_HAVE_HAPPENED = frozenset(
    {StepState.RUNNING, StepState.DONE, StepState.TIMED_OUT, StepState.COMPENSATING, StepState.SKIPPED}
)
"""A step in one of these has to be compensated."""


class SagaEvolution:
    """The fold of instances that run one version of a saga."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga
        self._closing = len(saga.steps)

    def evolve(self, instance: SagaInstance, event: Message) -> SagaInstance:
        """The state after an event."""
        match event:
            case pb.SagaStarted():
                return self._started(event)
            case pb.SagaStepSucceeded():
                return self._succeeded(instance, event, StepState.DONE)
            case pb.SagaStepFailed():
                return self._failed(instance, event)
            case pb.SagaInterrupted():
                return self._interrupted(instance, event)
            case pb.SagaStepCompensated():
                steps = _with(instance.steps, event.step, StepState.COMPENSATED)
                return self._compensate_next(replace(instance, steps=steps), _deadline(event))
            case pb.SagaCommandRetried():
                return replace(instance, attempts=event.attempt, deadline=_deadline(event))
            case pb.SagaNeedsAttention():
                return replace(instance, needs_attention=True)
            case pb.SagaCompleted():
                return self._completed(instance)
            case pb.SagaCompensated():
                return replace(_at_rest(instance), status=SagaStatus.COMPENSATED, needs_attention=False)
        return self._intervened(instance, event)

    def _intervened(self, instance: SagaInstance, event: Message) -> SagaInstance:
        """After what an operator ordered."""
        match event:
            case pb.SagaRetryRequested():
                return replace(instance, attempts=1, deadline=_deadline(event), needs_attention=False)
            case pb.SagaStepSkipped():
                return self._skipped(instance, event)
            case pb.SagaAborted():
                aborted = replace(instance, aborted=True, reason=event.reason)
                return self._compensate_next(aborted, _deadline(event))
        return instance

    def _started(self, event: pb.SagaStarted) -> SagaInstance:
        steps = (StepState.RUNNING, *[StepState.WAITING] * (self._closing - 1))
        return SagaInstance(
            SagaStatus.RUNNING, event.version, unpack(event.trigger), steps, 0, 1, _deadline(event)
        )

    def _succeeded(
        self, instance: SagaInstance, event: pb.SagaStepSucceeded | pb.SagaStepSkipped, state: StepState
    ) -> SagaInstance:
        """The step counts as done; the one that follows is awaited."""
        following = event.step + 1
        steps = _with(_with(instance.steps, event.step, state), following, StepState.RUNNING)
        return replace(instance, steps=steps, current=following, attempts=1, deadline=_deadline(event))

    def _failed(self, instance: SagaInstance, event: pb.SagaStepFailed) -> SagaInstance:
        state, refusal = StepState.TIMED_OUT, None
        if not event.timed_out:
            state, refusal = StepState.REFUSED, unpack(event.refusal)
        steps = _with(instance.steps, event.step, state)
        failed = replace(instance, steps=steps, reason=event.reason, refusal=refusal)
        return self._compensate_next(failed, _deadline(event))

    def _interrupted(self, instance: SagaInstance, event: pb.SagaInterrupted) -> SagaInstance:
        interrupted = replace(instance, interrupted=True, reason=instance.reason or event.reason)
        if instance.status is SagaStatus.COMPENSATING and instance.current != self._closing:
            return interrupted
        return self._compensate_next(interrupted, _deadline(event))

    def _completed(self, instance: SagaInstance) -> SagaInstance:
        steps = instance.steps
        if steps[-1] is not StepState.SKIPPED:
            steps = _with(steps, self._closing - 1, StepState.DONE)
        return replace(_at_rest(instance), status=SagaStatus.COMPLETED, steps=steps)

    def _skipped(self, instance: SagaInstance, event: pb.SagaStepSkipped) -> SagaInstance:
        if event.step == self._closing:
            return _at_rest(instance)
        if instance.status is SagaStatus.COMPENSATING:
            steps = _with(instance.steps, event.step, StepState.UNDO_SKIPPED)
            return self._compensate_next(replace(instance, steps=steps), _deadline(event))
        if event.step + 1 == self._closing:
            steps = _with(instance.steps, event.step, StepState.SKIPPED)
            return replace(_at_rest(instance), steps=steps)
        return self._succeeded(instance, event, StepState.SKIPPED)

    def _compensate_next(self, instance: SagaInstance, deadline: datetime | None) -> SagaInstance:
        """Turns to the last step that is still to be compensated; after those, to the closing command."""
        undoable = [
            number
            for number, (step, state) in enumerate(zip(self._saga.steps, instance.steps, strict=True))
            if step.undo and state in MAY_HAVE_HAPPENED
        ]
        current, steps = None, instance.steps
        if undoable:
            current = undoable[-1]
            steps = _with(steps, current, StepState.COMPENSATING)
        elif self._saga.on_compensated and not instance.interrupted:
            current = self._closing
        return replace(
            instance,
            status=SagaStatus.COMPENSATING,
            steps=steps,
            current=current,
            attempts=1,
            deadline=deadline,
            needs_attention=False,
        )


def _at_rest(instance: SagaInstance) -> SagaInstance:
    return replace(instance, current=None, deadline=None)


def _with(steps: tuple[StepState, ...], number: int, state: StepState) -> tuple[StepState, ...]:
    return (*steps[:number], state, *steps[number + 1 :])


def _deadline(event: Any) -> datetime | None:
    return event.deadline.ToDatetime(UTC) if event.HasField("deadline") else None
