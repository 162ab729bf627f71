"""Cuts a failing plan down to the commands and faults that the failure needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from twinlog.testing.simulation.run import Failure
from twinlog.testing.simulation.scenario import Plan

T = TypeVar("T")


def shrunk(run: Callable[[Plan], Failure | None], plan: Plan, promise: str, *, seconds: float) -> Plan:
    """The smallest plan found within a time that breaks the same promise."""
    give_up = time.monotonic() + seconds

    def fails(candidate: Plan) -> bool:
        if time.monotonic() > give_up:
            return False
        failure = run(candidate)
        return failure is not None and failure.promise == promise

    while True:
        less = _fewer_calls(_fewer_faults(plan, fails), fails)
        if less == plan:
            return plan
        plan = less


def _fewer_faults(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    return plan._replace(faults=_least(plan.faults, lambda some: fails(plan._replace(faults=some))))


def _fewer_calls(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    return plan._replace(calls=_least(plan.calls, lambda some: fails(plan._replace(calls=some))))


def _least(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> Sequence[T]:
    """A subset that still fails: halves are left out, then quarters … then single ones."""
    size = max(1, len(items) // 2)
    while items:
        start = 0
        while start < len(items):
            rest = [*items[:start], *items[start + size :]]
            if fails(rest):
                items = rest
            else:
                start += size
        if size == 1:
            break
        size //= 2
    return items
