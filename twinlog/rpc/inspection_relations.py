"""What belongs together in a log, as twinlog.v1.InspectionService tells it: causes, effects, correlated events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from twinlog.log import correlated
from twinlog.log.ports import Log
from twinlog.model.errors import NotFound
from twinlog.model.event import Recorded
from twinlog.model.times import timestamp
from twinlog.rpc.logged_event import that_fit
from twinlog.rpc.moments import address_of, time_of
from twinlog.rpc.validation import Checks
from twinlog.v1 import inspection_pb2 as pb

Shown = Callable[[Recorded], pb.LoggedEvent]
"""How an event is shown."""

_MOST_CAUSES, _MOST_EFFECTS = 100, 1_000
_CAUSES_BYTES, _EFFECTS_BYTES = 500_000, 1_500_000
_MOST_IDS, _MOST_TIMES = 100, 100


class EventNotFound(NotFound):
    """Log {log} has no event {position}; its last one is {head}."""

    reason = "EVENT_NOT_FOUND"


async def trace(log: Log, request: pb.TraceEventRequest, shown: Shown) -> pb.TraceEventResponse:
    """An event's causes and effects in a log, as they are shown. Raises InvalidArgument, NotFound or Unavailable."""
    checks = Checks()
    name, position = address_of(checks, "address", request.address)
    recorded_at = time_of(checks, "recorded_at", request.recorded_at)
    if name and name != log.name and not request.HasField("recorded_at"):
        checks.violate(
            "recorded_at", f"is missing: when was {request.address} recorded? It is not of log {log.name}"
        )
    checks.done()
    head = await log.head()
    related = correlated.Related(log, head, causes=[f"{name}/{position}"])
    if name != log.name:
        assert recorded_at
        await related.around([recorded_at])
        return await _told(log, related, pb.TraceEventResponse(), shown)
    event = await _at(log, position, head)
    before, beyond = await correlated.causes(log, event, _MOST_CAUSES)
    await related.behind(event)
    causes = that_fit(map(shown, before), _CAUSES_BYTES)
    if len(causes) < len(before):
        beyond = causes[-1].cause
    response = pb.TraceEventResponse(event=shown(event), causes=causes, beyond=beyond)
    return await _told(log, related, response, shown)


async def correlated_events(
    log: Log, request: pb.ReadCorrelatedRequest, limit: int, checks: Checks, shown: Shown
) -> AsyncIterator[pb.ReadCorrelatedResponse]:
    """The events that some requests set off. Raises InvalidArgument or Unavailable."""
    for field, values, least, most in (
        ("correlation_ids", request.correlation_ids, 1, _MOST_IDS),
        ("around", request.around, 0, _MOST_TIMES),
    ):
        if not least <= len(values) <= most:
            checks.violate(field, f"must be {least} to {most}; they are {len(values)}")
    if "" in request.correlation_ids:
        checks.violate("correlation_ids", "has an empty one: leave it out")
    around = [time for each in request.around if (time := time_of(checks, "around", each))]
    checks.done()
    related = correlated.Related(
        log, await log.head(), correlations=[*dict.fromkeys(request.correlation_ids)]
    )
    if around:
        await related.around(around)
        await related.spread()
    else:
        await related.newest()
    events = related.events
    for event in events[:limit]:
        yield pb.ReadCorrelatedResponse(event=shown(event))
    yield pb.ReadCorrelatedResponse(
        looked_at=await _ranges(log, related), complete=related.complete, more=len(events) > limit
    )


async def _told(
    log: Log, related: correlated.Related, response: pb.TraceEventResponse, shown: Shown
) -> pb.TraceEventResponse:
    effects = map(shown, related.events[:_MOST_EFFECTS])
    response.effects.extend(that_fit(effects, _EFFECTS_BYTES))
    response.looked_at.extend(await _ranges(log, related))
    return response


async def _at(log: Log, position: int, head: int) -> Recorded:
    events = await log.read(position - 1, 1)
    if not events:
        raise EventNotFound(log=log.name, position=position, head=head)
    return events[0]


async def _ranges(log: Log, related: correlated.Related) -> Sequence[pb.LogRange]:
    return [await _range(log, each) for each in related.looked_at]


async def _range(log: Log, looked_at: correlated.Range) -> pb.LogRange:
    told = pb.LogRange(after=looked_at.after, upto=looked_at.upto)
    first, last = await log.read(looked_at.after, 1), await log.read(looked_at.upto - 1, 1)
    if first and last:
        told.since.CopyFrom(timestamp(first[0].recorded_at))
        told.until.CopyFrom(timestamp(last[0].recorded_at))
    return told
