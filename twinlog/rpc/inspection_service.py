"""The edge of inspection: twinlog.v1.InspectionService. It reads, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC
from functools import partial

import twinlog
from twinlog.log import scan
from twinlog.log.past import Moment
from twinlog.log.ports import Log, ReadRequest
from twinlog.log.snapshots import StateCodecs
from twinlog.log.streams import beginning
from twinlog.log.time_travel import StillFolding, TimeTravel
from twinlog.log.transaction import Entry
from twinlog.log.unreadable import Unreadable
from twinlog.model.errors import NotFound
from twinlog.model.event import Recorded, StreamId
from twinlog.model.schema import Schema
from twinlog.model.times import timestamp
from twinlog.rpc.context import Context, time_left
from twinlog.rpc.inspection import Inspected, Patience
from twinlog.rpc.inspection_relations import correlated_events, trace
from twinlog.rpc.log_reading import End, Reading
from twinlog.rpc.logged_event import logged, that_fit
from twinlog.rpc.moments import as_spelled, moment_of, stream_of, time_of
from twinlog.rpc.saga_tables import saga_tables
from twinlog.rpc.state_parts import Part, changes
from twinlog.rpc.stream_states import MOST_STATES, shown, states
from twinlog.rpc.validation import Checks
from twinlog.v1 import inspection_pb2 as pb
from twinlog.v1.inspection_pb2_grpc import InspectionServiceServicer

_LIMIT, _MOST_EVENTS = 1_000, 10_000
_NEWEST, _MOST_NEWEST = 100, 1_000
_MOST_CHANGES = 1_000
_MOST_BYTES = 2_500_000
"""Of the events beside a state."""
_ROOM_BYTES = 4_000_000
"""Of all that is told of a stream: a client takes messages of 4 MiB."""
_MOST_SECONDS = 5.0
"""How long a call without a deadline waits for the process's servers."""
_NO_END = 2**63 - 1


class StreamNotFound(NotFound):
    """Log {log} has no stream {stream}."""

    reason = "STREAM_NOT_FOUND"


class StreamNotBegun(NotFound):
    """Stream {stream} had not begun by then: its first event is {first}, recorded {at}."""

    reason = "STREAM_NOT_BEGUN"


class InspectionService(InspectionServiceServicer):
    def __init__(self, inspected: Inspected, log: Log | None = None) -> None:
        """``log``: through which streams and events are looked up, if not as the process itself does."""
        self._inspected = inspected
        self._log = log or inspected.log
        self._end = End(self._log)
        codecs = StateCodecs(inspected.schema, inspected.personal)
        self._past = TimeTravel(self._log, inspected.schema, codecs)
        self._logged = partial(logged, schema=inspected.schema)

    async def Describe(self, request: pb.DescribeRequest, context: Context) -> pb.DescribeResponse:
        inspected = self._inspected
        return pb.DescribeResponse(
            service=inspected.service,
            twinlog_version=twinlog.__version__,
            started_at=timestamp(inspected.started_at),
            logs=await inspected.logs(_patience(context)),
            views=inspected.views(),
            aggregates=[aggregate.name for aggregate in inspected.aggregates],
            sagas=inspected.sagas,
            settings=[pb.Setting(name=name, value=value) for name, value in inspected.settings.items()],
            problems=inspected.problems(),
            saga_tables=saga_tables(inspected.aggregates),
            consumers=inspected.consumers_as_wired(),
        )

    async def ListConsumers(
        self, request: pb.ListConsumersRequest, context: Context
    ) -> pb.ListConsumersResponse:
        names = sorted(each.handler.name for each in self._inspected.followed)
        checks = Checks()
        if request.consumer and request.consumer not in names:
            checks.violate("consumer", f"is none of {', '.join(names) or 'this process, which has none'}")
        checks.done()
        found = await self._inspected.consumers(_patience(context), request.consumer)
        return pb.ListConsumersResponse(consumers=found)

    async def ReadLog(
        self, request: pb.ReadLogRequest, context: Context
    ) -> AsyncIterator[pb.ReadLogResponse]:
        checks = Checks()
        wanted = _filter(checks, request, self._inspected.schema)
        limit = _bounded(checks, "limit", request.limit, _LIMIT, _MOST_EVENTS)
        newest = _bounded(checks, "newest", request.newest, 0, _MOST_EVENTS)
        checks.done()
        if one := wanted.stream_id:
            wanted = replace(wanted, stream=str(await as_spelled(self._log, one)))
        head = await self._log.head()
        upto = min(request.upto, head) if request.upto else head
        reading = Reading(self._log, wanted, request.after)
        events = reading.newest(newest, upto) if newest else reading.range(upto, limit)
        async for event in events:
            yield pb.ReadLogResponse(event=self._logged(event), position=event.position)
        if not (request.follow and reading.complete):
            yield pb.ReadLogResponse(position=reading.position, complete=reading.complete)
            return
        async for event in reading.to_come(request.upto or _NO_END, self._end):
            yield pb.ReadLogResponse(event=self._logged(event), position=event.position)

    async def GetStream(self, request: pb.GetStreamRequest, context: Context) -> pb.GetStreamResponse:
        checks = Checks()
        stream = stream_of(checks, request.stream)
        _one_moment(checks, request)
        since = moment_of(checks, "since", request.since) if request.HasField("since") else None
        most = MOST_STATES if request.with_states else _MOST_NEWEST
        newest = _bounded(checks, "newest", request.newest, _NEWEST, most)
        until = _until(checks, request)
        checks.done()
        stream = await as_spelled(self._log, stream)
        upto = await self._upto(stream, request)
        response = pb.GetStreamResponse(stream=str(stream))
        try:
            version, found = await self._state(stream, upto, until)
        except StillFolding as still:
            version, found, response.folded = await self._version(stream, upto), str(still), still.folded
        [slice] = await self._log.load([ReadRequest(stream, max(0, version - newest), upto=version)])
        if not slice.events:
            raise StreamNotFound(log=self._log.name, stream=str(stream))
        response.version = version
        _show(found, request, response)
        response.events.extend(self._newest(slice.events, min(_MOST_BYTES, _room(response))))
        events = slice.events[-len(response.events) :]
        await asyncio.sleep(0)
        try:
            if since and isinstance(found, Entry) and response.HasField("state"):
                await self._compare(stream, since, found, until, response)
            if request.with_states and not response.folded:
                whole = not request.changes_only
                for step in await self._states(stream, events, until, _room(response), whole=whole):
                    response.states.append(step)  # copied, as is all of it once more when it is sent
                    await asyncio.sleep(0)
        except StillFolding as still:
            response.folded = still.folded
        return response

    async def TraceEvent(self, request: pb.TraceEventRequest, context: Context) -> pb.TraceEventResponse:
        return await trace(self._log, request, self._logged)

    async def ReadCorrelated(
        self, request: pb.ReadCorrelatedRequest, context: Context
    ) -> AsyncIterator[pb.ReadCorrelatedResponse]:
        checks = Checks()
        limit = _bounded(checks, "limit", request.limit, _LIMIT, _MOST_EVENTS)
        async for response in correlated_events(self._log, request, limit, checks, self._logged):
            yield response

    def _newest(self, events: Sequence[Recorded], room: int) -> Sequence[pb.LoggedEvent]:
        """Those that fit, the oldest first."""
        return that_fit(map(self._logged, reversed(events)), room)[::-1]

    async def _upto(self, stream: StreamId, request: pb.GetStreamRequest) -> int:
        """The version that is asked for; of now, the largest number. Raises StreamNotFound and StreamNotBegun."""
        time = request.upto_time.ToDatetime(UTC) if request.HasField("upto_time") else None
        moment = Moment(request.upto_version, request.upto_position, time)
        if version := await self._past.version(stream, moment):
            return version
        [slice] = await self._log.load([ReadRequest(stream, upto=1)])
        for first in slice.events:
            raise StreamNotBegun(
                stream=stream, first=first.address, at=first.recorded_at.isoformat(timespec="milliseconds")
            )
        raise StreamNotFound(log=self._log.name, stream=str(stream))

    async def _compare(
        self,
        stream: StreamId,
        since: Moment,
        after: Entry,
        until: float | None,
        response: pb.GetStreamResponse,
    ) -> None:
        """Fills in what has changed since a moment."""
        before = None
        if version := await self._past.version(stream, since):
            response.since_version = version
            version, found = await self._state(stream, version, until)
            before = None if isinstance(found, str) else found.state
        response.since_version = version
        compare = partial(changes, after.aggregate, before, after.state, _MOST_CHANGES)
        large = bool(response.large)  # it takes 0.1 s of two maps of 30,000 that share nothing
        told, response.more_changes = await asyncio.to_thread(compare) if large else compare()
        fit = that_fit(told, _room(response))
        response.more_changes += len(told) - len(fit)
        response.changes.extend(fit)

    async def _states(
        self, stream: StreamId, events: Sequence[Recorded], until: float | None, room: int, *, whole: bool
    ) -> Sequence[pb.StreamState]:
        """What each of the events changed, and came to; none where that cannot be shown."""
        if (aggregate := self._inspected.aggregate(stream.type)) is None:
            return []
        version = events[0].version - 1
        before = beginning(aggregate)
        if version:
            found = await self._past.state(aggregate, stream.id, Moment(version), until=until)
            if isinstance(found, Unreadable):
                return []
            before = found
        try:
            opened = await self._opened(events)
            return await states(self._inspected.schema, before, opened, room, whole=whole)
        except Exception:  # of a state that cannot be shown; without_state says so
            return []

    async def _state(self, stream: StreamId, upto: int, until: float | None) -> tuple[int, Entry | str]:
        """The version of a stream and what it comes to, or why that is not known. Raises StillFolding."""
        aggregate = self._inspected.aggregate(stream.type)
        if aggregate is None:
            why = f"aggregate {stream.type} is not among those that this service declares"
            return await self._version(stream, upto), why
        found = await self._past.state(aggregate, stream.id, Moment(upto), until=until)
        if isinstance(found, Unreadable):
            return await self._version(stream, upto), str(found.why)
        return found.version, found

    async def _opened(self, events: Sequence[Recorded]) -> Sequence[Recorded]:
        personal = self._inspected.personal
        return await personal.opened(events) if personal else events

    async def _version(self, stream: StreamId, upto: int) -> int:
        """The last version up to one."""
        return min(upto, await self._past.version(stream, Moment(position=_NO_END)))


def _show(found: Entry | str, request: pb.GetStreamRequest, response: pb.GetStreamResponse) -> None:
    """Fills in a state, or why there is none. Raises ValidationFailed where it has no such part as is asked for."""
    part = Part(request.entries_of, request.entries_after)
    state, large = (found, ()) if isinstance(found, str) else shown(found, part)
    if isinstance(state, str):
        response.without_state = state
        return
    checks = Checks()
    paths = [each.path for each in large]
    if request.entries_of and request.entries_of not in paths:
        checks.violate(
            "entries_of", f"is none of the large fields of this state: {', '.join(paths) or 'it has none'}"
        )
    checks.done()
    response.state.CopyFrom(state)
    response.large.extend(large)


def _room(response: pb.GetStreamResponse) -> int:
    """Bytes that it may still take in."""
    return _ROOM_BYTES - response.ByteSize()


def _patience(context: Context) -> Patience:
    return Patience.of(time_left(context, _MOST_SECONDS))


def _until(checks: Checks, request: pb.GetStreamRequest) -> float | None:
    """By when states are wanted, as a time of the event loop; None: whenever they come."""
    if not request.HasField("state_within"):
        return None
    within = checks.age("state_within", request.state_within)
    return asyncio.get_running_loop().time() + within.total_seconds()


def _filter(checks: Checks, request: pb.ReadLogRequest, schema: Schema) -> scan.Filter:
    for name in ("after", "upto"):
        if getattr(request, name) < 0:
            checks.violate(name, "must be a position: 1 or more, or 0")
    if "/" in request.stream:
        stream_of(checks, request.stream)
    return scan.Filter(
        request.stream,
        schema.stored_under(request.types),
        request.routing_key,
        request.correlation_id,
        time_of(checks, "since", request.since) if request.HasField("since") else None,
        time_of(checks, "until", request.until) if request.HasField("until") else None,
    )


def _one_moment(checks: Checks, request: pb.GetStreamRequest) -> None:
    for name, words in (("upto_version", "the newest"), ("upto_position", "not by position")):
        if getattr(request, name) < 0:
            checks.violate(name, f"must be 1 or more, or 0 for {words}")
    given = [name for name in ("upto_version", "upto_position") if getattr(request, name)]
    given += ["upto_time"] * request.HasField("upto_time")
    if len(given) > 1:
        checks.violate(given[1], f"cannot be given with {given[0]}: name one moment")
    if request.HasField("upto_time"):
        time_of(checks, "upto_time", request.upto_time)
    if request.entries_after < 0 or (request.entries_after and not request.entries_of):
        checks.violate("entries_after", "must be 0, or 1 and more with entries_of")


def _bounded(checks: Checks, field: str, value: int, default: int, most: int) -> int:
    if not 0 <= value <= most:
        checks.violate(field, f"must be 1 to {most:,}, or 0; it is {value}")
    return value or default
