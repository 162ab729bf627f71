"""What goes wrong with the systems that effects call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twinlog.model.effects import Attempt, Effects, Function


def troubled(effects: Effects, bad: Callable[[str], bool], note: Callable[[str], None]) -> Effects:
    """The same effects, whose calls meet what is wrong at that time.

    ``bad``: whether a fault of that kind is on; ``note`` is told of what it did. What is wrong is a TimeoutError to
    whoever calls, as every table takes that for transient.
    """
    rules = {event: _called(function, bad, note) for event, function in effects.rules.items()}
    return replace(effects, rules=rules)


def _called(function: Function, bad: Callable[[str], bool], note: Callable[[str], None]) -> Function:
    async def call(event: Any, attempt: Attempt) -> Any:
        if bad("provider down"):
            raise TimeoutError("the provider is down")
        answer = await function(event, attempt)
        if bad("lost answers"):
            note(f"{attempt.event.address}: it was called, and its answer is lost")
            raise TimeoutError("the answer is lost")
        return answer

    return call
