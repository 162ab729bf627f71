"""What an instance waits for and what is still to happen, for operators: pure, from its table and its state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from google.protobuf.message import Message

from twinlog.model.saga import Saga, SagaInstance, SagaStatus


class AwaitedKind(StrEnum):
    """What brings a step on."""

    REPLY = "reply"
    """A participant's answer to its command."""
    UNDOING = "undoing"
    """A participant's answer to its compensation."""
    CLOSING = "closing"
    """The answer to the closing command."""


class AwaitedAnswer(NamedTuple):
    """One answer that an instance waits for."""

    step: int
    """The step, counted from 0; the number of steps for the closing command."""
    name: str
    """The step's name."""
    kind: AwaitedKind
    answers: Sequence[type[Message]]
    """The events that bring it on, success first."""
    attempts: int
    """How many times the command was sent."""
    next_retry: datetime | None
    """When the command is sent again if nothing comes; None: it is not."""
    deadline: datetime | None
    """When the step is given up if nothing comes; None: never."""


def awaited_answers(saga: Saga, instance: SagaInstance) -> Sequence[AwaitedAnswer]:
    """What an instance waits for. ``saga``: the table of its version."""
    current, due = instance.current, instance.deadline
    if current is None:
        return []
    closing = saga.on_compensated
    if current == len(saga.steps):
        assert closing is not None
        kind, name, answers, retried = AwaitedKind.CLOSING, closing.name, [closing.done], True
    else:
        step = saga.steps[current]
        kind, name, retried = AwaitedKind.REPLY, step.name, instance.attempts <= step.retries
        answers = [answer for answer in (step.done, step.refused) if answer]
        if instance.status is SagaStatus.COMPENSATING:
            kind, retried = AwaitedKind.UNDOING, True
            answers = [answer for answer in (step.undone, step.refused) if answer]
    again, given_up = (due, None) if retried else (None, due)
    return [AwaitedAnswer(current, name, kind, answers, instance.attempts, again, given_up)]


def remaining_steps(saga: Saga, instance: SagaInstance) -> Sequence[str]:
    """What is still to happen, in words: names of steps, "undo: …" and the closing command."""
    current, names = instance.current, [step.name for step in saga.steps]
    if current is None:
        return []
    if instance.status is SagaStatus.RUNNING:
        return names[current:]
    closing = [saga.on_compensated.name] if saga.on_compensated else []
    if current == len(names):
        return closing
    undo = [f"undo: {names[number]}" for number in range(current, -1, -1) if saga.steps[number].undo]
    return undo if instance.interrupted else [*undo, *closing]
