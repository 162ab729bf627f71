"""The form of a saga's table and of its steps."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from twinlog.model.forms import (
    DURATION_OR_TIME,
    EVENT,
    EVENTS,
    FLAG,
    MOST_DAYS,
    NAME,
    RULES,
    Form,
    Forms,
    function_of,
    one,
    optional,
    several,
    whole,
)
from twinlog.model.saga_step import Backoff, Step

_MAKES_COMMAND = optional(
    function_of("the context that makes the command, such as lambda context: HoldRoom(id=context.trigger.id)")
)


def _of_logs(given: Any) -> bool:
    return hasattr(given, "items") and all(
        NAME.holds(log) and EVENTS.holds(each) for log, each in given.items()
    )


_SOURCES = Form(_of_logs, 'by log, the events that it hears, such as {"rooms": [RoomHeld, RoomRefused]}')


def _is_bounded(given: Any) -> bool:
    return isinstance(given, timedelta) and given <= timedelta(days=MOST_DAYS)


def _is_backoff(given: Any) -> bool:
    return (
        isinstance(given, Backoff)
        and _is_bounded(given.first)
        and _is_bounded(given.most)
        and whole(1).holds(given.attention_after)
    )


_BACKOFF = Form(
    _is_backoff, "a Backoff of two timedeltas of at most two years, and attention_after of 1 or more"
)

SAGA_FORMS: Forms = {
    "name": NAME,
    "version": whole(-(2**31)),
    "starts_with": EVENT,
    "steps": several(Step, "steps"),
    "partition_key": function_of("the trigger"),
    "on_compensated": optional(one(Step, "a step with send and done")),
    "interrupted_by": RULES,
    "backoff": _BACKOFF,
    "id": optional(function_of("the event")),
    "sources": _SOURCES,
    "routing_key": NAME,
}
"""Those of a table."""

STEP_FORMS: Forms = {
    "name": NAME,
    "send": _MAKES_COMMAND,
    "done": optional(EVENT),
    "refused": optional(EVENT),
    "why": function_of("the refusal"),
    "undo": _MAKES_COMMAND,
    "undone": optional(EVENT),
    "matches": optional(function_of("the event")),
    "deadline": optional(DURATION_OR_TIME),
    "retries": whole(-(2**31)),
    "transient": Form(
        lambda given: given is None or EVENT.holds(given) or callable(given),
        "the generated class of a message, or a function of the refusal",
    ),
    "backoff": optional(_BACKOFF),
    "when": optional(function_of("the context")),
    "lasts": optional(DURATION_OR_TIME),
    "no_return": FLAG,
}
"""Those of a step."""
