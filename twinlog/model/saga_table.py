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
from functools import cached_property
from typing import Any

from google.protobuf.message import Message

from twinlog.model.errors import ConfigurationError
from twinlog.model.forms import (
    EVENT,
    EVENTS,
    NAME,
    RULES,
    Form,
    Forms,
    function_of,
    one,
    optional,
    several,
    whole,
    wrong_parts,
    wrong_rules,
)
from twinlog.model.saga_mistakes import (
    event_name,
    in_backoff,
    in_function,
    in_steps,
    wrong_groups,
    wrong_pivot,
    wrong_step,
)
from twinlog.model.saga_step import Backoff, Step


class WrongSagaTable(ConfigurationError):
    """Saga {saga}, version {version}: {what}."""

    reason = "WRONG_SAGA_TABLE"


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
        if what := next(_wrong_in_table(self), ""):
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


def _of_logs(given: Any) -> bool:
    return hasattr(given, "items") and all(
        NAME.holds(log) and EVENTS.holds(each) for log, each in given.items()
    )


_FORMS: Forms = {
    "name": NAME,
    "version": whole(-(2**31)),
    "starts_with": EVENT,
    "steps": several(Step, "steps"),
    "partition_key": function_of("the trigger"),
    "on_compensated": optional(one(Step, "a step with send and done")),
    "interrupted_by": RULES,
    "backoff": one(Backoff, "a Backoff, such as Backoff(first=timedelta(seconds=5))"),
    "id": optional(function_of("the event")),
    "sources": Form(_of_logs, 'by log, the events that it hears, such as {"rooms": [RoomHeld, RoomRefused]}'),
    "routing_key": NAME,
}


def name_of(saga: Saga, step: int) -> str:
    """The name of a step by its number; that of the closing command by the number of steps."""
    closing = saga.on_compensated
    return closing.name if step == len(saga.steps) and closing else saga.steps[step].name


def _wrong_in_table(saga: Saga) -> Iterator[str]:
    yield from wrong_parts(saga, _FORMS)
    yield from wrong_rules("interrupted_by", saga.interrupted_by)
    yield from wrong_groups(saga.steps)


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
        if what := wrong_step(step, saga.steps):
            return f'the step "{step.name}" {what}'
    closing = saga.on_compensated
    if closing and not (closing.send and closing.done):
        return f'the closing command "{closing.name}" needs send and done'
    return wrong_pivot(saga.steps) or "; ".join(_silent_mistakes(saga))


def _silent_mistakes(saga: Saga) -> Iterator[str]:
    """What would go unnoticed until an instance takes a wrong turn."""
    if not saga.name or "/" in saga.name:
        yield f"its name {saga.name!r} is empty or has a slash, which parts name and id; rename it"
    if saga.version < 1:
        yield f"versions count from 1, and {saga.version} would stand for an instance that has not begun; renumber it"
    yield from in_backoff("its", saga.backoff)
    for step in saga.steps:
        if step.done in saga.interrupted_by:
            yield (
                f'{event_name(step.done)} interrupts it, so that the step "{step.name}" would never succeed; leave it '
                "out of interrupted_by, or let success be another event"
            )
    reasons = {f"reason for {event_name(event)}": reason for event, reason in saga.interrupted_by.items()}
    for name, function in {"partition_key": saga.partition_key, "id": saga.id, **reasons}.items():
        yield from (f"it has {what}" for what in in_function(name, function, "the event"))
    yield from in_steps([step for step in (*saga.steps, saga.on_compensated) if step])
