"""The form of a saga's table and of its steps."""

from __future__ import annotations

from collections.abc import Mapping
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
    TEXT,
    Form,
    Forms,
    function_of,
    one,
    optional,
    several,
    whole,
)

CONTEXT_FORMS: Forms = {
    "reason": TEXT,
    "aborted": FLAG,
    "replies": Form(
        lambda given: isinstance(given, Mapping), "a mapping from the names of steps to messages"
    ),
    "attempt": whole(1),
}


def saga_forms(step: type, backoff: type) -> Forms:
    """Those of a table; ``step`` and ``backoff`` are its classes."""
    return {
        "name": NAME,
        "version": whole(-(2**31)),
        "starts_with": EVENT,
        "steps": several(step, "steps"),
        "partition_key": function_of("the trigger"),
        "on_compensated": optional(one(step, "a step with send and done")),
        "interrupted_by": RULES,
        "backoff": _backoff(backoff),
        "id": optional(function_of("the event")),
        "sources": _SOURCES,
        "routing_key": NAME,
    }


def step_forms(backoff: type) -> Forms:
    """Those of a step."""
    return {
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
        "backoff": optional(_backoff(backoff)),
        "when": optional(function_of("the context")),
        "lasts": optional(DURATION_OR_TIME),
        "no_return": FLAG,
    }


_MAKES_COMMAND = optional(
    function_of("the context that makes the command, such as lambda context: HoldRoom(id=context.trigger.id)")
)


def _of_logs(given: Any) -> bool:
    return hasattr(given, "items") and all(
        NAME.holds(log) and EVENTS.holds(each) for log, each in given.items()
    )


_SOURCES = Form(_of_logs, 'by log, the events that it hears, such as {"rooms": [RoomHeld, RoomRefused]}')


def _backoff(of: type) -> Form:
    return one(of, "a Backoff, such as Backoff(first=timedelta(seconds=5))")


_BOUNDED = Form(
    lambda given: isinstance(given, timedelta) and given <= timedelta(days=MOST_DAYS),
    f"a timedelta, such as timedelta(seconds=5), of at most {MOST_DAYS} days",
)
BACKOFF_FORMS: Forms = {"first": _BOUNDED, "most": _BOUNDED, "attention_after": whole(1)}
"""Those of a backoff. What is too short is told with the table, by the step that has it."""
