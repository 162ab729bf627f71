"""Mistakes in a saga's steps, each with what to do instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import combinations
from typing import Any

from google.protobuf.message import Message

from twinlog.model.forms import shown
from twinlog.model.functions import not_plain, takes
from twinlog.model.saga_step import Backoff, Parallel, Step

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


def wrong_groups(steps: Sequence[Step]) -> Iterator[str]:
    """What is wrong with the steps of each :class:`Parallel`."""
    for step in steps:
        if isinstance(step, Parallel):
            if not step.together:
                yield "a Parallel has no steps; give it some, or leave it out"
            if other := next((each for each in step.together if not isinstance(each, Step)), None):
                yield f"a Parallel has {shown(other)} among its steps; give steps, as in Parallel(Step(…), Step(…))"


def wrong_step(step: Step, steps: Sequence[Step]) -> str:
    """Why a step cannot run as one of ``steps``; empty: it can."""
    return _wrong_alone(step) or _ambiguous(step, steps)


def _wrong_alone(step: Step) -> str:
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


def _ambiguous(step: Step, steps: Sequence[Step]) -> str:
    """What two steps of a group cannot have in common."""
    if not step.group:
        return ""
    others = [other for other in steps if other.group == step.group and other is not step]
    for other in others:
        for answer in step.answers:
            if answer in other.answers and not (step.matches and other.matches):
                return (
                    f'and "{other.name}" run in parallel, and {answer.DESCRIPTOR.name} answers both; say by matches= '
                    "which of them is whose, or let each step have events of its own"
                )
    return ""


def wrong_pivot(steps: Sequence[Step]) -> str:
    """What is wrong with the point of no return; empty: nothing."""
    points = [number for number, step in enumerate(steps) if step.no_return]
    if not points:
        return ""
    if len(points) > 1:
        return "it has several points of no return; the first decides, so mark that one only"
    if steps[points[0]].group:
        return f'the point of no return "{steps[points[0]].name}" stands in a Parallel; let it stand alone'
    for step in steps[points[0] :]:
        if step.undo:
            return f'"{step.name}" is never undone, from the point of no return on; leave out undo and undone'
    return ""


def in_steps(steps: Sequence[Step]) -> Iterator[str]:
    """What would go unnoticed until an instance takes a wrong turn."""
    for step in steps:
        yield from (f'the step "{step.name}" {what}' for what in _in_step(step))
    for one, other in combinations(steps, 2):
        yield from _in_common(one, other)


def _in_step(step: Step) -> Iterator[str]:
    if not step.name:
        yield "has no name; give it one, which people see and replies are kept by"
    for name, given in _FUNCTIONS.items():
        yield from (f"has {what}" for what in in_function(name, getattr(step, name), given))
    for name in ("deadline", "lasts"):
        time = getattr(step, name)
        if isinstance(time, timedelta) and time <= timedelta():
            yield f"has {name}={time}, which is over at once; give it more than 0"
    if step.retries < 0:
        yield f"has retries={step.retries}; give 0 or more"
    if step.backoff:
        yield from in_backoff("has a", step.backoff)
    others = [answer for answer in (step.refused, step.undone, step.transient) if isinstance(answer, type)]
    if step.done in others:
        yield f"has {event_name(step.done)} for success and for something else; let each have an event of its own"


def in_function(name: str, function: Any, given: str) -> Iterator[str]:
    """What is wrong with a function of a table that is called with ``given``."""
    if not callable(function) or isinstance(function, type):
        return
    if what := not_plain(function):
        kind = "an async" if "async" in what else "a yielding"
        yield f"{kind} {name}, and a table decides without waiting; make it a plain function"
    if not takes(function, 1):
        yield f"a function {name} that cannot be called with 1 argument; let it take {given}"


def in_backoff(whose: str, backoff: Backoff) -> Iterator[str]:
    """What is wrong with a backoff; ``whose`` begins the sentence."""
    if backoff.first <= timedelta() or backoff.most < backoff.first:
        yield (
            f"{whose} backoff goes from {backoff.first} to {backoff.most}, and would send again without a pause; "
            "let first be more than 0 and most no less than first"
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
                f'the steps "{one.name}" and "{other.name}" {both} by {event_name(answer)}, so that an answer that '
                "comes again or late would count for the wrong one; say by matches= which of them is whose, or let "
                "each step have events of its own"
            )


def _answers(step: Step) -> Iterator[tuple[str, type[Message]]]:
    """What each event says of a step."""
    for said in ("done", "refused", "transient", "undone"):
        if isinstance(answer := getattr(step, said), type):
            yield ("put off" if said == "transient" else said), answer


def event_name(type: Any) -> str:
    """The short name of an event, for people."""
    return str(type.DESCRIPTOR.name) if issubclass(type, Message) else str(type)
