"""What an instance waits for and what is still to happen, for operators: pure, from its table and its state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from google.protobuf.message import Message

from twinlog.model.saga import Awaited, SagaInstance, SagaStatus, StepState
from twinlog.model.saga_evolution import SagaEvolution
from twinlog.model.saga_table import Saga, name_of


class AwaitedKind(StrEnum):
    """What brings a step on."""

    REPLY = "reply"
    """A participant's answer to its command."""
    SIGNAL = "signal"
    """A person, or another signal from outside: nothing was sent for it."""
    TIME = "time"
    """A time that has to pass."""
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
    """The events that bring it on, success first; none for a time."""
    logs: Sequence[str]
    """The logs that they come from, where the table says so: whose service owes the answer."""
    attempts: int
    """How many times the command was sent; 0 where there is none."""
    next_retry: datetime | None
    """When the command is sent again if nothing comes; None: it is not."""
    deadline: datetime | None
    """When the step is given up if nothing comes, or has lasted long enough; None: never."""


def awaited_answers(saga: Saga, instance: SagaInstance) -> Sequence[AwaitedAnswer]:
    """What an instance waits for; several only while steps run in parallel. ``saga``: the table of its version."""
    return [_answer(saga, instance, each) for each in instance.awaited]


def remaining_steps(saga: Saga, instance: SagaInstance) -> Sequence[str]:
    """What is still to happen, in words: names of steps, "undo: …" and the closing command."""
    if instance.status is SagaStatus.RUNNING:
        open = (StepState.WAITING, StepState.RUNNING)
        return [step.name for step, state in zip(saga.steps, instance.steps, strict=True) if state in open]
    if instance.status is not SagaStatus.COMPENSATING or not instance.awaited:
        return []
    closing = saga.on_compensated
    closes = [closing.name] if closing and not instance.interrupted else []
    if instance.current == len(saga.steps):
        return closes or [name_of(saga, len(saga.steps))]
    undo = SagaEvolution(saga).to_undo(instance)
    return [*[f"undo: {saga.steps[number].name}" for number in undo], *closes]


def _answer(saga: Saga, instance: SagaInstance, awaited: Awaited) -> AwaitedAnswer:
    kind, answers, retried = _expected(saga, instance, awaited)
    logs = [log for log, types in saga.sources.items() if set(types) & set(answers)]
    sends = kind not in (AwaitedKind.SIGNAL, AwaitedKind.TIME)
    return AwaitedAnswer(
        awaited.step,
        name_of(saga, awaited.step),
        kind,
        answers,
        logs,
        awaited.attempts if sends else 0,
        awaited.deadline if retried else None,
        None if retried else awaited.deadline,
    )


def _expected(
    saga: Saga, instance: SagaInstance, awaited: Awaited
) -> tuple[AwaitedKind, Sequence[type[Message]], bool]:
    """What is expected, of which types, and whether the command is sent again at the deadline."""
    closing = saga.on_compensated
    if awaited.step == len(saga.steps):
        return AwaitedKind.CLOSING, [closing.done] if closing and closing.done else [], True
    step = saga.steps[awaited.step]
    if instance.status is SagaStatus.COMPENSATING:
        return AwaitedKind.UNDOING, [answer for answer in (step.undone, step.refused) if answer], True
    if step.lasts is not None:
        return AwaitedKind.TIME, [], False
    if step.send is None:
        return AwaitedKind.SIGNAL, step.answers, False
    has_to_happen = saga.pivot is not None and awaited.step >= saga.pivot
    retried = awaited.resting or has_to_happen or awaited.attempts <= step.retries
    return AwaitedKind.REPLY, step.answers, retried
