"""What a saga's state sends: the awaited step's command and the deadline of its answer, or the end."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from google.protobuf.message import Message

from twinlog.model.saga import Saga, SagaInstance, SagaStatus
from twinlog.v1 import saga_pb2 as pb


class Sent(NamedTuple):
    """What follows an event in its stream."""

    message: Message
    """The command for a participant, or the event that ends the saga."""
    deadline: datetime | None = None
    """When the command's answer is overdue; None: never."""


class SagaCommands:
    """What instances that run one version of a saga send."""

    def __init__(self, saga: Saga) -> None:
        self._saga = saga

    def sent(self, instance: SagaInstance, now: datetime) -> Sent:
        """What an instance sends on entering its state."""
        if instance.current is None:
            return Sent(ending(instance))
        if instance.status is SagaStatus.COMPENSATING:
            return Sent(
                self._compensation(instance, instance.current),
                now + self._saga.backoff.delay(instance.attempts),
            )
        step = self._saga.steps[instance.current]
        due = step.deadline
        if callable(due):
            return Sent(step.send(instance.context), due(instance.trigger))
        return Sent(step.send(instance.context), now + due if due else None)

    def _compensation(self, instance: SagaInstance, current: int) -> Message:
        if current == len(self._saga.steps):
            assert self._saga.on_compensated is not None
            return self._saga.on_compensated.send(instance.context)
        undo = self._saga.steps[current].undo
        assert undo is not None
        return undo(instance.context)


def ending(instance: SagaInstance) -> Message:
    """The event that ends an instance that awaits nothing more."""
    if instance.status is SagaStatus.RUNNING:
        return pb.SagaCompleted()
    return pb.SagaCompensated(reason=instance.reason)
