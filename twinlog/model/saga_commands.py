"""What a saga's state sends: the commands of the awaited steps and the deadlines of their answers, or the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from google.protobuf.message import Message

from twinlog.model.forms import shown
from twinlog.model.saga import Awaited, SagaInstance, SagaStatus
from twinlog.model.saga_step import Backoff, SagaContext, Step
from twinlog.model.saga_table import Saga
from twinlog.v1 import saga_pb2 as pb


class Sent(NamedTuple):
    """What an awaited answer answers."""

    step: int
    message: Message | None
    """The command for a participant; None: the step waits for something else."""
    deadline: datetime | None = None
    """When the answer is overdue, or the step has lasted long enough; None: never."""


class SagaCommands:
    """What instances that run one version of a saga send."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga

    def sent(self, instance: SagaInstance, awaited: Sequence[Awaited], now: datetime) -> Sequence[Sent]:
        """What an instance sends for some of the answers that it awaits."""
        if instance.status is SagaStatus.COMPENSATING:
            (each,) = awaited
            command = self._compensation(instance, each)
            return [Sent(each.step, command, now + self._saga.backoff.delay(each.attempts))]
        return [self._of_step(instance, each, now) for each in awaited]

    def left_out(self, instance: SagaInstance, steps: Sequence[int]) -> Sequence[int]:
        """Those of some steps whose condition does not hold."""
        conditions = [(number, self._saga.steps[number].when) for number in steps]
        return [number for number, when in conditions if when and not when(instance.context)]

    def backoff(self, step: Step) -> Backoff:
        """When a step's command is sent again after it failed."""
        return step.backoff or self._saga.backoff

    def _of_step(self, instance: SagaInstance, awaited: Awaited, now: datetime) -> Sent:
        step = self._saga.steps[awaited.step]
        command = step.send(instance.context_of(awaited.sent)) if step.send else None
        if step.send and not isinstance(command, Message):
            raise _no_command(step, "send", command)
        lasts = step.deadline if step.lasts is None else step.lasts
        if not callable(lasts):
            return Sent(awaited.step, command, None if lasts is None else now + lasts)
        due = lasts(instance.trigger)
        if due is not None and not (isinstance(due, datetime) and due.tzinfo):
            raise TypeError(
                f'the step "{step.name}": its time is {shown(due)}; give a datetime with a time zone'
            )
        if awaited.attempts > 1 and due <= now and step.lasts is None and self._goes_on(awaited.step):
            due = now + self.backoff(step).delay(awaited.attempts)
        return Sent(awaited.step, command, due)

    def _goes_on(self, number: int) -> bool:
        """Whether a step is tried again without limit: from the point of no return on."""
        return self._saga.pivot is not None and number >= self._saga.pivot

    def _compensation(self, instance: SagaInstance, awaited: Awaited) -> Message:
        context = instance.context_of(awaited.sent)
        if awaited.step == len(self._saga.steps):
            assert self._saga.on_compensated and self._saga.on_compensated.send
            return _message(self._saga.on_compensated, "send", context)
        return _message(self._saga.steps[awaited.step], "undo", context)


def _message(step: Step, part: str, context: SagaContext) -> Message:
    command = getattr(step, part)(context)
    if not isinstance(command, Message):
        raise _no_command(step, part, command)
    return command


def _no_command(step: Step, part: str, given: object) -> TypeError:
    return TypeError(
        f'the step "{step.name}": {part} gave {shown(given)}; give the message that is its command'
    )


def ending(instance: SagaInstance) -> Message:
    """The event that ends an instance that awaits nothing more."""
    if instance.status is SagaStatus.RUNNING:
        return pb.SagaCompleted()
    return pb.SagaCompensated(reason=instance.reason)
