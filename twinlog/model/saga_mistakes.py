"""Mistakes in a saga's table that would go unnoticed until an instance takes a wrong turn, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import combinations
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from twinlog.model.functions import not_plain, takes

if TYPE_CHECKING:
    from twinlog.model.saga_table import Backoff, Saga, Step

_FUNCTIONS = {
    "send": "the context",
    "undo": "the context",
    "when": "the context",
    "why": "the refusal",
    "matches": "the event",
    "transient": "the refusal",
    "deadline": "the trigger",
    "lasts": "the trigger",
}
"""Of a step, with what each is given."""


def silent_mistakes(saga: Saga) -> Iterator[str]:
    """What is wrong with a table."""
    if not saga.name or "/" in saga.name:
        yield f"its name {saga.name!r} is empty or has a slash, which parts name and id; rename it"
    if saga.version < 1:
        yield f"versions count from 1, and {saga.version} would stand for an instance that has not begun; renumber it"
    yield from _in_backoff("its", saga.backoff)
    yield from _in_types(saga)
    yield from _in_functions(saga)
    for step in (*saga.steps, *_closing(saga)):
        yield from (f'the step "{step.name}" {what}' for what in _in_step(step))
    for one, other in combinations((*saga.steps, *_closing(saga)), 2):
        yield from _in_common(one, other)


def _closing(saga: Saga) -> Sequence[Step]:
    return [saga.on_compensated] if saga.on_compensated else []


def _in_step(step: Step) -> Iterator[str]:
    if not step.name:
        yield "has no name; give it one, which people see and replies are kept by"
    for name, given in _FUNCTIONS.items():
        yield from (f"has {what}" for what in _in_function(name, getattr(step, name), given))
    for name in ("deadline", "lasts"):
        time = getattr(step, name)
        if isinstance(time, timedelta) and time <= timedelta():
            yield f"has {name}={time}, which is over at once; give it more than 0"
    if step.retries < 0:
        yield f"has retries={step.retries}; give 0 or more"
    if step.backoff:
        yield from _in_backoff("has a", step.backoff)
    others = [answer for answer in (step.refused, step.undone, step.transient) if isinstance(answer, type)]
    if step.done in others:
        yield f"has {_name(step.done)} for success and for something else; let each have an event of its own"


def _in_function(name: str, function: Any, given: str) -> Iterator[str]:
    if not callable(function) or isinstance(function, type):
        return
    if what := not_plain(function):
        kind = "an async" if "async" in what else "a yielding"
        yield f"{kind} {name}, and a table decides without waiting; make it a plain function"
    if not takes(function, 1):
        yield f"a function {name} that cannot be called with 1 argument; let it take {given}"


def _in_functions(saga: Saga) -> Iterator[str]:
    functions = {"partition_key": saga.partition_key, "id": saga.id}
    reasons = {f"reason for {_name(event)}": reason for event, reason in saga.interrupted_by.items()}
    for name, function in {**functions, **reasons}.items():
        yield from (f"it has {what}" for what in _in_function(name, function, "the event"))


def _in_backoff(whose: str, backoff: Backoff) -> Iterator[str]:
    if backoff.first <= timedelta() or backoff.most < backoff.first:
        yield (
            f"{whose} backoff goes from {backoff.first} to {backoff.most}, and would send again without a pause; "
            "let first be more than 0 and most no less than first"
        )


def _in_types(saga: Saga) -> Iterator[str]:
    for step in saga.steps:
        if step.done in saga.interrupted_by:
            yield (
                f'{_name(step.done)} interrupts it, so that the step "{step.name}" would never succeed; leave it out '
                "of interrupted_by, or let success be another event"
            )


def _in_common(one: Step, other: Step) -> Iterator[str]:
    """A command may be sent again, and the second answer then comes when another step waits for its own."""
    if one.matches and other.matches:
        return
    theirs = dict(_answers(other))
    for said, answer in _answers(one):
        if what := next((what for what, same in theirs.items() if same is answer), None):
            both = f"are both {said}" if what == said else f"are {said} and {what}"
            yield (
                f'the steps "{one.name}" and "{other.name}" {both} by {_name(answer)}, so that an answer that comes '
                "again or late would count for the wrong one; say by matches= which of them is whose, or let each "
                "step have events of its own"
            )


def _answers(step: Step) -> Iterator[tuple[str, type[Message]]]:
    """What each event says of a step."""
    for said in ("done", "refused", "transient", "undone"):
        if isinstance(answer := getattr(step, said), type):
            yield ("put off" if said == "transient" else said), answer


def _name(type: Any) -> str:
    return str(type.DESCRIPTOR.name) if issubclass(type, Message) else str(type)
