"""What events changed in their streams. That changes only where a person is erased, so it is kept for some seconds."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from twinlog.console.services import Services
from twinlog.console.story import log_of
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_MOST_KEPT = 2_000
_MOST_AT_ONCE = 100
_LONG_STREAM = 5_000
"""Versions from which on a stream is not folded for a look at what an event changed in it."""
_ALL_AT_ONCE_SECONDS = 1.0
_KEPT_SECONDS = 3.0
"""They have personal texts in plain. A service forgets those of an erased person within some 2 s; 5 s are promised."""


class _Kept(NamedTuple):
    """What an event changed, and when that was told."""

    change: pb.StreamState
    at: float


_kept: WeakKeyDictionary[Services, OrderedDict[str, _Kept]] = WeakKeyDictionary()


async def changes_of(
    services: Services, owners: Mapping[str, str], events: Iterable[pb.LoggedEvent]
) -> dict[str, pb.StreamState]:
    """What events changed, by their ids, as far as that is known. ``owners``: services by the logs that they own."""
    kept = _kept.setdefault(services, OrderedDict())
    events, now = [*events], time.monotonic()
    while kept and now - next(iter(kept.values())).at >= _KEPT_SECONDS:
        kept.popitem(last=False)
    missing: dict[tuple[str, str], list[pb.LoggedEvent]] = {}
    for event in events:
        if event.event_id not in kept and event.version <= _LONG_STREAM:
            missing.setdefault((log_of(event), event.stream), []).append(event)
    await asyncio.gather(
        *(
            _ask(services, owners[log], stream, some, kept)
            for (log, stream), some in missing.items()
            if log in owners
        )
    )
    while len(kept) > _MOST_KEPT:
        kept.popitem(last=False)
    return {event.event_id: kept[event.event_id].change for event in events if event.event_id in kept}


async def _ask(
    services: Services,
    service: str,
    stream: str,
    events: Sequence[pb.LoggedEvent],
    kept: OrderedDict[str, _Kept],
) -> None:
    asked_at = time.monotonic()
    last = max(event.version for event in events)
    count = min(_MOST_AT_ONCE, last - min(event.version for event in events) + 1)
    request = pb.GetStreamRequest(stream=stream, upto_version=last, newest=count, with_states=True)
    answer = await services.ask(
        service, lambda c: InspectionServiceStub(c).GetStream, request, seconds=_ALL_AT_ONCE_SECONDS
    )
    if answer.message is None:
        return  # asked again with the next look at the page
    states = {state.version: state for state in answer.message.states}
    for event in events:
        # Without a state there is nothing to tell, and there will not be.
        change = states.get(event.version, pb.StreamState(version=event.version))
        kept[event.event_id] = _Kept(change, asked_at)
