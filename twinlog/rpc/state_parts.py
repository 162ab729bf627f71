"""A state as people read it, whatever it holds: of a large map or list a part, and exactly what differs between two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, NamedTuple

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.json_format import MessageToDict
from rpds import HashTrieMap

from twinlog.log.snapshots import StateCodec
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.differences import differences
from twinlog.model.messages import StoredMessage
from twinlog.model.saga import SagaInstance
from twinlog.model.uuid_map import UuidMap
from twinlog.v1 import inspection_pb2 as pb

MOST_ENTRIES = 100
"""Of a map or a list in a state; larger ones are told in part."""

Object = dict[str, Any]
_KINDS = (UuidMap, HashTrieMap, dict, list, tuple)
_NONE: Mapping[Any, Any] = {}


class Part(NamedTuple):
    """Which entries of a large field are wanted, if not the first ones."""

    path: str = ""
    after: int = 0


FIRST = Part()


class Told(NamedTuple):
    """A state as JSON has it."""

    value: Object
    large: Sequence[pb.LargeField]
    """What of it is told in part."""


def told(aggregate: AnyAggregate, state: Any, part: Part = FIRST) -> Told:
    """A state as JSON has it; one that is no object is its field "value". Raises whatever pydantic does.

    Large fields are cut before they are encoded, those further down after it.
    """
    cut: dict[str, Any] = {}
    large: dict[str, pb.LargeField] = {}
    for name, value in _fields(state):
        if len(value) > MOST_ENTRIES:
            large[name] = _large(name, len(value), part)
            cut[name] = _entries(value, large[name].after)
            large[name].told = len(cut[name])
        elif isinstance(value, UuidMap):
            cut[name] = dict(value.items())
    value = _encoded(aggregate, state, cut)
    for name, field in large.items():
        _say_more(value.get(name), field)
    further = [*_cut(value, part, large)]
    return Told(value, [*large.values(), *further])


def changes(aggregate: AnyAggregate, before: Any, after: Any, most: int) -> tuple[list[pb.StateChange], int]:
    """What differs between two states, by path, and how many more changes than ``most`` there are; before, None: there
    was none.

    Of maps and lists only the entries that differ are encoded. Raises whatever pydantic does.
    """
    if before is None:
        return [*differences({}, told(aggregate, after).value)][:most], 0
    old, new = dict(_fields(before)), dict(_fields(after))
    was: dict[str, Any] = {}
    now: dict[str, Any] = {}
    more = 0
    for name in old.keys() | new.keys():
        keys = _differing(old.get(name, _NONE), new.get(name, _NONE))
        more += max(0, len(keys) - most)
        for held, kept in ((old, was), (new, now)):
            if name in held:
                kept[name] = _only(held[name], keys[:most])
    found = [*differences(_encoded(aggregate, before, was), _encoded(aggregate, after, now))]
    return found[:most], more + max(0, len(found) - most)


def _fields(state: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a state that are maps or lists."""
    if is_dataclass(state):
        for field in fields(state):
            value = getattr(state, field.name)
            if type(value) in _KINDS:
                yield field.name, value


def _large(path: str, entries: int, part: Part) -> pb.LargeField:
    return pb.LargeField(
        path=path, entries=entries, after=min(part.after, entries) if part.path == path else 0
    )


def _entries(value: Any, after: int) -> Any:
    upto = after + MOST_ENTRIES
    if isinstance(value, UuidMap):
        return value.part(after, MOST_ENTRIES)
    if isinstance(value, HashTrieMap):  # its own order is another one in each map with the same entries
        return {key: value[key] for key in sorted(value, key=str)[after:upto]}
    if isinstance(value, dict):
        return dict(islice(value.items(), after, upto))
    return value[after:upto]


def _differing(before: Any, after: Any) -> Sequence[Any]:
    """The keys, or places in a list, that differ."""
    if before is after:
        return []
    if isinstance(after, UuidMap) and (before is _NONE or isinstance(before, UuidMap)):
        return after.differing(before if isinstance(before, UuidMap) else UuidMap())
    old, new = (each if isinstance(each, Mapping) else dict(enumerate(each)) for each in (before, after))
    gone_or_other = [key for key, each in old.items() if key not in new or _differs(each, new[key])]
    return gone_or_other + [key for key in new if key not in old]


def _differs(one: Any, other: Any) -> bool:
    return one is not other and bool(one != other)


def _only(value: Any, keys: Sequence[Any]) -> Any:
    """The entries of a map that have one of these keys; of a list, the items at these places, by place."""
    if isinstance(value, Mapping):
        return {key: value[key] for key in keys if key in value}
    return _Places({key: value[key] for key in keys if key < len(value)})


class _Places(dict[int, Any]):
    """Some items of a list, by their places."""


def _encoded(aggregate: AnyAggregate, state: Any, instead: Mapping[str, Any]) -> Object:
    """A state as JSON has it, with other values of some fields."""
    spared = state
    if instead:  # past the constructor, which may refuse a part of a state
        spared = copy(state)
        for name, value in instead.items():
            held = getattr(state, name)
            stands = UuidMap() if isinstance(held, UuidMap) else value
            stands = type(held)(value.values()) if isinstance(value, _Places) else stands
            object.__setattr__(spared, name, stands)
    value = json.loads(StateCodec(aggregate).encode(spared))
    if not isinstance(value, dict):
        return {"value": value}
    for name, each in instead.items():
        if isinstance(getattr(state, name), UuidMap):
            value[name] = dict(each)  # it is bytes otherwise
        elif isinstance(each, _Places) and isinstance(value.get(name), list):
            value[name] = dict(zip(each, value[name], strict=True))
    if isinstance(state, SagaInstance):
        value |= _readable(state)
    return value


def _cut(value: Any, part: Part, done: Mapping[str, Any], path: str = "") -> Iterator[pb.LargeField]:
    """Cuts what is still large within a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in list(entries):
        if not isinstance(each, (dict, list)):
            continue
        at = f"{path}.{name}" if path else str(name)
        if len(each) > MOST_ENTRIES and at not in done:
            field = _large(at, len(each), part)
            value[name] = each = _entries(each, field.after)
            field.told = len(each)
            yield field
            yield from _cut(each, part, done, at)
            _say_more(each, field)
        else:
            yield from _cut(each, part, done, at)


def _say_more(value: Any, field: pb.LargeField) -> None:
    if more := field.entries - field.after - field.told:
        words = f"and {more:,} more"
        if isinstance(value, dict):
            value["…"] = words
        elif isinstance(value, list):
            value.append(f"… {words}")


def _readable(saga: SagaInstance) -> dict[str, Any]:
    """What a saga keeps as bytes or by place, with names."""
    return {
        "trigger": _message(saga.trigger),
        "refusal": _message(saga.refusal),
        "replies": {step: _message(Packed.FromString(reply)) for step, reply in saga.replies.items()},
        "awaited": [
            {**each._asdict(), "deadline": each.deadline.isoformat() if each.deadline else None}
            for each in saga.awaited
        ],
    }


def _message(stored: StoredMessage) -> Any:
    if stored is None:
        return None
    try:
        return MessageToDict(stored, preserving_proto_field_name=True)
    except TypeError:  # of a type that is unknown here
        return type(stored).__name__
