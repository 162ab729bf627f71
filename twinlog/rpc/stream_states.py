"""What a stream came to with each of its events, and what each changed: for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import islice
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from twinlog.log.snapshots import StateCodec
from twinlog.log.streams import fold
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.differences import differences
from twinlog.model.event import Recorded
from twinlog.model.messages import StoredMessage
from twinlog.model.saga import SagaInstance
from twinlog.model.schema import Schema
from twinlog.model.uuid_map import UuidMap
from twinlog.v1 import inspection_pb2 as pb

MOST_STATES = 100
"""Events of one answer whose states are told."""
_MOST_CHANGES = 200
_MOST_BYTES = 1_500_000
"""States of one answer, as JSON: gRPC refuses messages of 4 MiB."""
_MOST_ENTRIES = 500
"""Of a map in a state; larger ones are told in part."""


def as_object(aggregate: AnyAggregate, state: Any) -> dict[str, Any]:
    """A state as JSON has it; one that is no object is its field "value". Raises whatever pydantic does."""
    maps = _maps(state)
    if maps:  # they are bytes otherwise, and may be very many
        state = replace(state, **dict.fromkeys(maps, UuidMap()))
    value = json.loads(StateCodec(aggregate).encode(state))
    value |= {name: _entries(entries) for name, entries in maps.items()}
    if isinstance(state, SagaInstance):
        value |= _readable(state)
    return value if isinstance(value, dict) else {"value": value}


def _maps(state: Any) -> Mapping[str, UuidMap]:
    """The fields of a state that are maps in a compact form."""
    if not is_dataclass(state):
        return {}
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    return {name: value for name, value in values.items() if isinstance(value, UuidMap)}


def _entries(entries: UuidMap) -> dict[str, Any]:
    """A map as people read it; of a large one, so many entries and how many more there are."""
    shown: dict[str, Any] = dict(islice(entries.items(), _MOST_ENTRIES))
    if (more := len(entries) - len(shown)) > 0:
        shown["…"] = f"and {more:,} more"
    return shown


def _readable(saga: SagaInstance) -> dict[str, Any]:
    """What a saga keeps as bytes or by place, with names."""
    return {
        "trigger": _message(saga.trigger),
        "refusal": _message(saga.refusal),
        "replies": {step: _message(reply) for step, reply in saga.replies.items()},
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


def shown(aggregate: AnyAggregate, state: Any) -> Struct | str:
    """A state, or why it cannot be shown."""
    struct = Struct()
    try:
        struct.update(as_object(aggregate, state))
    except Exception as error:  # whatever pydantic raises over a class that it does not understand
        return f"the state cannot be shown: {type(error).__name__}: {error}"
    return struct


def states(schema: Schema, before: Entry, events: Sequence[Recorded]) -> list[pb.StreamState]:
    """What each event came to, from the stream as it was before them; it ends where one cannot be read.

    Raises whatever pydantic does over a state that it does not understand.
    """
    told: list[pb.StreamState] = []
    sizes: list[int] = []
    at, value = before, as_object(before.aggregate, before.state)
    for event in events:
        folded = fold(schema, at, [event])
        if isinstance(folded, Unreadable):
            break
        at, last = folded, value
        value = as_object(at.aggregate, at.state)
        changes = list(differences(last, value))
        state = pb.StreamState(version=event.version, changes=changes[:_MOST_CHANGES])
        state.more_changes = max(0, len(changes) - _MOST_CHANGES)
        state.state.update(value)
        told.append(state)
        sizes.append(state.ByteSize())
    _shorten(told, sizes)
    return told


def _shorten(told: Sequence[pb.StreamState], sizes: Sequence[int]) -> None:
    """Keeps as many of the newest states as there is room for."""
    left = _MOST_BYTES
    for state, size in zip(reversed(told), reversed(sizes), strict=True):
        left -= size
        if left < 0:
            state.ClearField("state")
