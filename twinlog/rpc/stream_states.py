"""What a stream came to with each of its events, and what each changed: for people."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct

from twinlog.log.streams import fold
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.errors import named
from twinlog.model.event import Recorded
from twinlog.model.schema import Schema
from twinlog.rpc.state_parts import FIRST, Part, changes, told
from twinlog.v1 import inspection_pb2 as pb

MOST_STATES = 100
"""Events of one answer whose states are told."""
_MOST_CHANGES = 200
_MOST_BYTES = 1_500_000
"""States of one answer, as JSON."""


def shown(at: Entry, part: Part = FIRST) -> tuple[Struct | str, Sequence[pb.LargeField]]:
    """A state, or why it cannot be shown; and what of it is told in part."""
    struct = Struct()
    try:
        value, large = told(at.aggregate, at.state, part)
        struct.update(value)
    except Exception as error:  # whatever pydantic raises over a class that it does not understand
        return f"the state cannot be shown: {named(error)}", []
    return struct, large


async def states(
    schema: Schema, before: Entry, events: Sequence[Recorded], room: int, *, whole: bool
) -> list[pb.StreamState]:
    """What each event changed of the stream as it was before them, and with ``whole`` what it came to; it ends where
    one cannot be read. ``room``: bytes; changes of the oldest events that do not fit are counted only.

    Raises whatever pydantic does over a state that it does not understand.
    """
    steps: list[pb.StreamState] = []
    entries: list[Entry] = []
    at = before
    for event in events:
        folded = fold(schema, at, [event])
        if isinstance(folded, Unreadable):
            break
        found, more = changes(at.aggregate, at.state, folded.state, _MOST_CHANGES)
        steps.append(pb.StreamState(version=event.version, changes=found, more_changes=more))
        entries.append(folded)
        at = folded
        await asyncio.sleep(0)
    for step in reversed(steps):
        room -= step.ByteSize()
        if room < 0:
            step.more_changes += len(step.changes)
            step.ClearField("changes")
    if whole:
        await _fill(steps, entries, min(_MOST_BYTES, room))
    return steps


async def _fill(steps: Sequence[pb.StreamState], entries: Sequence[Entry], left: int) -> None:
    """Tells as many of the newest states as there is room for."""
    for step, at in zip(reversed(steps), reversed(entries), strict=True):
        step.state.update(told(at.aggregate, at.state).value)
        left -= step.state.ByteSize()
        if left < 0:
            step.ClearField("state")
            return
        await asyncio.sleep(0)
