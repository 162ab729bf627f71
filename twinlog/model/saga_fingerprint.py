"""The shape of a saga's table: what its instances in flight rest on.

An instance keeps to its version's table, so that table keeps its shape: the steps in their order with their names,
events, groups and conditions, what can be undone, the point of no return and what interrupts. Functions, deadlines,
retries and backoff are no part of it and may be changed in place: what they said is in the events.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from google.protobuf.message import Message

from twinlog.model.saga_step import Step
from twinlog.model.saga_table import Saga
from twinlog.model.schema import Schema

_PICKS = "picks its answers"
"""No difference: an instance in flight is told its own answers from others', which is what it needs."""

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


def is_shape(stored: object) -> bool:
    """Whether what is stored as a shape can be compared with others."""
    steps = stored.get("steps") if isinstance(stored, Mapping) else None
    return isinstance(steps, list) and all(
        isinstance(step, Mapping) and isinstance(step.get("name"), str) for step in steps
    )


def differences(kept: Shape, now: Shape) -> Sequence[str]:
    """What differs between two shapes, in words; empty: nothing."""
    said = [
        f"{what} was {kept.get(what) or 'nothing'} and is {now.get(what) or 'nothing'}"
        for what in sorted({*kept, *now} - {"steps"})
        if kept.get(what) != now.get(what)
    ]
    return [*_steps_differ(kept["steps"], now["steps"]), *said]


def with_types_of_today(kept: Shape, now: Shape, schema: Schema) -> Shape:
    """A kept shape with the message types that were renamed since as they are called now.

    ``schema`` has the upcasters that rename them.
    """
    names = [name for name in _strings(now) if "." in name]
    today = {old: name for name in names for old in schema.stored_types([_short(name)])}
    return cast("Shape", _mapped(kept, lambda text: today.get(_short(text), text) if "." in text else text))


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif not isinstance(value, bool):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _mapped(part, change) for name, part in value.items()}
    return [_mapped(part, change) for part in value] if isinstance(value, list) else value


def _steps_differ(kept: Sequence[Shape], now: Sequence[Shape]) -> Sequence[str]:
    before, after = {step["name"]: step for step in kept}, {step["name"]: step for step in now}
    said = [f'step "{name}" is gone' for name in before if name not in after]
    said += [f'step "{name}" is new' for name in after if name not in before]
    order = [name for name in before if name in after]
    if order != (changed := [name for name in after if name in before]):
        said.append(f"the order was {_listed(order)} and is {_listed(changed)}")
    return said + [
        f'step "{name}" has changed ({what})'
        for name in order
        if (what := _changed(before[name], after[name]))
    ]


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
        _PICKS: step.matches is not None,
        "is conditional": step.when is not None,
        "is the point of no return": step.no_return,
    }
    return {what: value for what, value in found.items() if value}


def _name(type: type[Message] | None) -> str:
    return type.DESCRIPTOR.full_name if type else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _changed(before: Shape, after: Shape) -> str:
    changed = [what for what in sorted({*before, *after} - {_PICKS}) if before.get(what) != after.get(what)]
    return "; ".join(f"{what}: {before.get(what, 'no')} → {after.get(what, 'no')}" for what in changed)
