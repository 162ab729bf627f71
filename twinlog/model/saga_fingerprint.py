"""The shape of a saga's table: what its instances in flight rest on.

An instance keeps to its version's table, so that table keeps its shape: the steps in their order with their names,
events, groups and conditions, what can be undone, the point of no return and what interrupts. Functions, deadlines,
retries and backoff are no part of it and may be changed in place: what they said is in the events.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from google.protobuf.message import Message

from twinlog.model.saga_table import Saga, Step

Shape = Mapping[str, Any]
"""JSON: names of steps and of message types."""


def shape_of(saga: Saga) -> Shape:
    """The shape of a table."""
    closing = saga.on_compensated
    return {
        "starts_with": _name(saga.starts_with),
        "steps": [_step(step) for step in saga.steps],
        "on_compensated": _name(closing.done) if closing else "",
        "interrupted_by": sorted(_name(type) for type in saga.interrupted_by),
    }


def fingerprint_of(saga: Saga) -> str:
    """A short name of a table's shape, as 16 hexadecimal digits."""
    text = json.dumps(shape_of(saga), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(kept: Shape, now: Shape) -> Sequence[str]:
    """What differs between two shapes, in words; empty: nothing."""
    said = [
        f"{what} was {kept.get(what) or 'nothing'} and is {now.get(what) or 'nothing'}"
        for what in sorted({*kept, *now} - {"steps"})
        if kept.get(what) != now.get(what)
    ]
    for number, (before, after) in enumerate(zip_longest(kept["steps"], now["steps"])):
        if before != after:
            said.append(f"step {number} {_changed(before, after)}")
    return said


def _step(step: Step) -> Shape:
    """A step's shape; what it lacks is left out, so that what a later release adds changes no other step."""
    found = {
        "name": step.name,
        "done": _name(step.done),
        "refused": _name(step.refused),
        "transient": _name(step.transient) if isinstance(step.transient, type) else "",
        "undone": _name(step.undone),
        "in parallel with": step.group,
        "sends": step.send is not None,
        "lasts": step.lasts is not None,
        "is conditional": step.when is not None,
        "is the point of no return": step.no_return,
    }
    return {what: value for what, value in found.items() if value}


def _name(type: type[Message] | None) -> str:
    return type.DESCRIPTOR.full_name if type else ""


def _changed(before: Shape | None, after: Shape | None) -> str:
    if before is None or after is None:
        step, what = (after, "is new") if before is None else (before, "is gone")
        return f'"{step["name"]}" {what}' if step else what
    if before["name"] != after["name"]:
        return f'was "{before["name"]}" and is "{after["name"]}"'
    changed = [what for what in sorted({*before, *after}) if before.get(what) != after.get(what)]
    told = [f"{what}: {before.get(what, 'no')} → {after.get(what, 'no')}" for what in changed]
    return f'"{before["name"]}" has changed ({"; ".join(told)})'
