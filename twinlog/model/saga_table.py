"""Sagas as tables: steps with their compensations, one line for each thing that can happen.

    steps=[
        Parallel(
            Step("hold room", send=hold_room, done=RoomHeld, refused=RoomRefused, undo=free_room, undone=RoomFreed),
            Step("authorize payment", send=authorize, done=Authorized, refused=Declined, undo=void, undone=Voided,
                 transient=ProviderDown, retries=5),
        ),
        Step("manager agrees", when=lambda trip: trip.trigger.nights > 30, done=Agreed, refused=Disagreed),
        Step("withdrawal period", lasts=timedelta(days=2)),
        Step("capture payment", send=capture, done=Captured, refused=CaptureRefused, no_return=True),
        Step("send voucher", send=voucher, done=VoucherSent),
    ]

What is wrong in a table is refused when it is made. (Garcia-Molina and Salem, "Sagas", 1987; the point of no return is
the pivot of Richardson, "Microservices Patterns", 2018.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from google.protobuf.message import Message

from twinlog.model.errors import ConfigurationError
from twinlog.model.forms import refuse_other, shown, wrong_events, wrong_functions, wrong_parts
from twinlog.model.messages import unpack
from twinlog.model.saga_forms import BACKOFF_FORMS, saga_forms, step_forms
from twinlog.model.saga_mistakes import silent_mistakes


class WrongSagaTable(ConfigurationError):
    """Saga {saga}, version {version}: {what}."""

    reason = "WRONG_SAGA_TABLE"


class Replies(Mapping[str, Any]):
    """The replies of steps, by the names of the steps; each is unpacked when it is asked for."""

    __slots__ = ("_packed",)

    def __init__(self, packed: Mapping[str, Any]) -> None:
        """``packed``: each as a google.protobuf.Any."""
        self._packed = packed

    def __getitem__(self, step: str) -> Any:
        if step not in self._packed:
            kept = ", ".join(f'"{name}"' for name in self._packed) or "none"
            raise KeyError(f'no reply of step "{step}" is kept; there are: {kept}')
        return unpack(self._packed[step])

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


_NO_REPLIES = Replies({})


@dataclass(frozen=True)
class SagaContext:
    """What an instance knows when it makes a command."""

    trigger: Any
    """The event that started it."""
    reason: str = ""
    """Why it is being compensated."""
    refusal: Any = None
    """The participant's refusal that led to compensation; None after a timeout, an interruption or an abort."""
    aborted: bool = False
    """Whether an operator aborted it."""
    replies: Mapping[str, Any] = field(default_factory=lambda: _NO_REPLIES)
    """By step, the event that answered it with success: ``context.replies["authorize payment"].payment_id``. A step
    that was skipped, left out, undone unanswered or answered under 0.1.0 has none."""


@dataclass(frozen=True)
class Backoff:
    """When a command is sent again: after ``first``, then after twice as long each time, up to ``most``."""

    first: timedelta = timedelta(seconds=5)
    most: timedelta = timedelta(minutes=5)
    attention_after: int = 5
    """After this many failed attempts, an instance that retries without end shows that it needs attention."""

    def __post_init__(self) -> None:
        refuse_other("Backoff", self, BACKOFF_FORMS)

    def delay(self, attempt: int) -> timedelta:
        """How long attempt number ``attempt``, from 1, waits for its answer, or for the next one after it failed."""
        return min(self.first * (1 << min(attempt - 1, 20)), self.most)


@dataclass(frozen=True)
class Step:
    """One step: a command, the events that answer it, and its compensation.

    Without ``send`` it waits for a person or another outside signal; with ``lasts`` it waits for a time.
    """

    name: str
    """For people, such as "reserve credit"; the key of its reply. No other step has it."""
    send: Callable[[SagaContext], Message] | None = None
    """Makes the command; None: it waits for ``done`` or ``refused`` to come by itself."""
    done: type[Message] | None = None
    """The event that says it succeeded."""
    refused: type[Message] | None = None
    """The event that says it failed."""
    why: Callable[[Any], str] = lambda refusal: str(refusal.DESCRIPTOR.name)
    """From the refusal: the reason, for people."""
    undo: Callable[[SagaContext], Message] | None = None
    """Makes the command that compensates the step; None: there is nothing to compensate. It may be sent while the
    step's own command is still under way, and the participant then lets that come to nothing."""
    undone: type[Message] | None = None
    """The event that says it is compensated."""
    matches: Callable[[Any], bool] | None = None
    """Whether an answer of these types is this step's, where several steps have answers of one type:
    ``lambda event: event.leg == 2``. None: each is."""
    deadline: timedelta | Callable[[Any], datetime] | None = None
    """How long the answer may take, or a function from the trigger to the time it is due; None: as long as it takes,
    for a step that has to happen in the end."""
    retries: int = 0
    """How often the command is sent again, overdue or after a transient failure, before the step has failed."""
    transient: type[Message] | Callable[[Any], bool] | None = None
    """What tells a failure that may pass from a business refusal: a separate event, or a function of the refusal.
    The command is then sent again, when ``backoff`` says."""
    backoff: Backoff | None = None
    """When it is sent again after a transient failure; None: the saga's."""
    when: Callable[[SagaContext], bool] | None = None
    """Whether the step is needed, decided once when its turn comes; None: always."""
    lasts: timedelta | Callable[[Any], datetime] | None = None
    """How long it waits, or a function from the trigger to the time when the wait ends."""
    no_return: bool = False
    """The point of no return: once it is done, the saga only goes forward. What is refused or overdue from there on is
    tried again without limit, and interruptions and aborts come too late."""
    group: str = field(default="", repr=False)
    """The name of the first step of its :class:`Parallel`; empty for a step that stands alone."""
    together: tuple[Step, ...] = field(default=(), repr=False)
    """The steps of a :class:`Parallel`."""

    def __post_init__(self) -> None:
        refuse_other(f"step {self.name!r}", self, step_forms(Backoff))

    def is_transient(self, failure: Message) -> bool:
        """Whether a failure may pass."""
        if isinstance(self.transient, type):
            return isinstance(failure, self.transient)
        of_type = self.refused is not None and isinstance(failure, self.refused)
        return self.transient is not None and of_type and bool(self.transient(failure))

    @cached_property
    def answers(self) -> tuple[type[Message], ...]:
        """The events that answer its command."""
        failure = self.transient if isinstance(self.transient, type) else None
        return tuple(answer for answer in (self.done, self.refused, failure) if answer)


class Parallel(Step):
    """Steps that begin together: all must succeed; the first refusal undoes the others, whether under way or done."""

    def __init__(self, *steps: Step) -> None:
        super().__init__("in parallel", together=steps)


@dataclass(frozen=True)
class Saga:
    """One version of a saga's table. An instance keeps to the version that it started with."""

    name: str
    version: int
    starts_with: type[Message]
    """The event that starts an instance: its trigger."""
    steps: Sequence[Step]
    """At least one; they run in order, those of a :class:`Parallel` together. Kept flat: one after the other."""
    partition_key: Callable[[Any], str]
    """From the trigger: the partition key of the instance's events."""
    on_compensated: Step | None = None
    """The closing command, sent once every compensation is done; only its ``send`` and ``done`` are used."""
    interrupted_by: Mapping[type[Message], Callable[[Any], str]] = field(default_factory=dict)
    """Events that make the saga compensate, even once it is completed, and leave out the closing command; each with a
    function from the event to the reason, for people. One that answers the closing command counts as its answer."""
    backoff: Backoff = Backoff()
    """When an unanswered compensation is sent again; also the default for the steps."""
    id: Callable[[Any], str] | None = None
    """From the trigger or any reply, the id of its instance. ``Service.subscribe`` needs this and ``sources``."""
    sources: Mapping[str, Sequence[type[Message]]] = field(default_factory=dict)
    """By log, its events that start, answer or interrupt an instance; each type that the table names appears once."""
    routing_key: str = ""
    """Only events with this routing key are heard; empty: all."""

    def __post_init__(self) -> None:
        if what := _of_other_form(self):
            raise WrongSagaTable(saga=self.name, version=self.version, what=what)
        flat = [step for each in self.steps for step in _flattened(each)]
        object.__setattr__(self, "steps", tuple(flat))
        if what := _wrong(self):
            raise WrongSagaTable(saga=self.name, version=self.version, what=what)

    @cached_property
    def groups(self) -> Sequence[Sequence[int]]:
        """The numbers of the steps that run together; most stand alone."""
        groups: list[list[int]] = []
        for number, step in enumerate(self.steps):
            if step.group and step.group != step.name:
                groups[-1].append(number)
            else:
                groups.append([number])
        return groups

    @cached_property
    def has_conditions(self) -> bool:
        """Whether any step is conditional."""
        return any(step.when for step in self.steps)

    @cached_property
    def pivot(self) -> int | None:
        """The number of the step that is the point of no return; None: there is none."""
        return next((number for number, step in enumerate(self.steps) if step.no_return), None)

    @property
    def answers(self) -> Sequence[type[Message]]:
        """Every event that its instances take in, except the trigger."""
        found = [answer for step in self.steps for answer in (*step.answers, step.undone)]
        closing = self.on_compensated.done if self.on_compensated else None
        return list(dict.fromkeys(answer for answer in (*found, closing, *self.interrupted_by) if answer))


def _wrong_in_table(saga: Saga) -> Iterator[str]:
    yield from wrong_parts(saga, saga_forms(Step, Backoff))
    yield from wrong_events("interrupted_by", saga.interrupted_by)
    yield from wrong_functions("interrupted_by", saga.interrupted_by)


def _of_other_form(saga: Saga) -> str:
    """What is not what a table is made of; empty: nothing."""
    if wrong := next(_wrong_in_table(saga), ""):
        return wrong
    for step in saga.steps:
        if isinstance(step, Parallel):
            if not step.together:
                return "a Parallel has no steps; give it some, or leave it out"
            if other := next((each for each in step.together if not isinstance(each, Step)), None):
                return f"a Parallel has {shown(other)} among its steps; give steps, as in Parallel(Step(…), Step(…))"
    return ""


def _flattened(step: Step) -> Sequence[Step]:
    if not step.together:
        return [step]
    first = step.together[0].name
    return [each if each.together else replace(each, group=first) for each in step.together]


def _wrong(saga: Saga) -> str:
    """What is wrong with a table, and what to do; empty: nothing."""
    names = [step.name for step in saga.steps]
    if not names:
        return "it has no steps; give it at least one"
    for step in saga.steps:
        if names.count(step.name) > 1:
            return f'two steps are called "{step.name}"; replies are kept by name, so give each its own'
        if what := _wrong_step(step) or _ambiguous(saga, step):
            return f'the step "{step.name}" {what}'
    closing = saga.on_compensated
    if closing and not (closing.send and closing.done):
        return f'the closing command "{closing.name}" needs send and done'
    return _wrong_pivot(saga) or "; ".join(silent_mistakes(saga))


def _wrong_step(step: Step) -> str:
    if step.together:
        return "is a Parallel inside a Parallel; put all steps into one, or one after the other"
    if step.lasts is not None:
        given = step.send or step.done or step.refused or step.deadline or step.undo or step.no_return
        return "only lasts for a time: it takes no command, answer, deadline or undo" if given else ""
    if step.done is None:
        return "needs done=, the event that says it succeeded, or lasts=, for a step that only waits"
    if (step.undo is None) != (step.undone is None):
        return "needs undo= and undone= together: a compensation is retried until it is answered"
    if step.send is None and (step.retries or step.transient):
        return "sends nothing, so nothing can be sent again: leave out retries and transient"
    if step.transient and not (step.retries or step.no_return):
        return "has a transient failure and no retries; say how often its command is sent again"
    if step.transient and not isinstance(step.transient, type) and not step.refused:
        return "tells transient refusals from others by a function; that needs refused="
    return ""


def _ambiguous(saga: Saga, step: Step) -> str:
    """What two steps of a group cannot have in common."""
    if not step.group:
        return ""
    others = [other for other in saga.steps if other.group == step.group and other is not step]
    for other in others:
        for answer in step.answers:
            if answer in other.answers and not (step.matches and other.matches):
                return (
                    f'and "{other.name}" run in parallel, and {answer.DESCRIPTOR.name} answers both; say by matches= '
                    "which of them is whose, or let each step have events of its own"
                )
    return ""


def _wrong_pivot(saga: Saga) -> str:
    points = [number for number, step in enumerate(saga.steps) if step.no_return]
    if not points:
        return ""
    if len(points) > 1:
        return "it has several points of no return; the first decides, so mark that one only"
    if saga.steps[points[0]].group:
        return (
            f'the point of no return "{saga.steps[points[0]].name}" stands in a Parallel; let it stand alone'
        )
    for step in saga.steps[points[0] :]:
        if step.undo:
            return f'"{step.name}" is never undone, from the point of no return on; leave out undo and undone'
    return ""
