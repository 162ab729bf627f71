"""The edge of the history: twinlog.v1.HistoryService. It reads, and changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from twinlog.log import cuts
from twinlog.log.history import Cut, LogHistory
from twinlog.log.ports import Log
from twinlog.log.wire import to_wire
from twinlog.model.times import timestamp
from twinlog.rpc.context import Context
from twinlog.rpc.inspection_relations import EventNotFound
from twinlog.rpc.moments import as_spelled, moment_of, stream_of, time_of
from twinlog.rpc.peers import Peers, positions
from twinlog.rpc.validation import Checks
from twinlog.v1 import history_service_pb2 as pb
from twinlog.v1 import moment_pb2
from twinlog.v1.history_service_pb2_grpc import HistoryServiceServicer

_MOST_BYTES = 1_000_000
"""Of one message: gRPC refuses those of 4 MiB."""
_MOST_LOGS = 1_000


class HistoryService(HistoryServiceServicer):
    def __init__(self, log: Log, peers: Peers) -> None:
        self._log = log
        self._own = LogHistory(log)
        self._peers = peers

    async def ReadStream(
        self, request: pb.ReadStreamRequest, context: Context
    ) -> AsyncIterator[pb.ReadStreamResponse]:
        checks = Checks()
        stream = stream_of(checks, request.stream)
        after_id = _event_id(checks, request.after_event_id)
        if request.after_version < 0:
            checks.violate("after_version", f"must be 1 or more, or 0; it is {request.after_version}")
        upto = moment_of(checks, "upto", request.upto)
        checks.done()
        stream = await as_spelled(self._log, stream)
        response, size = pb.ReadStreamResponse(), 0
        async for events in self._own.events(stream, upto, request.after_version, after_id):
            for event in events:
                response.events.append(wire := to_wire(event))
                size += len(wire)
                if size > _MOST_BYTES:
                    yield response
                    response, size = pb.ReadStreamResponse(), 0
        if response.events:
            yield response

    async def FindPosition(
        self, request: pb.FindPositionRequest, context: Context
    ) -> pb.FindPositionResponse:
        checks = Checks()
        time = time_of(checks, "time", request.time) if request.HasField("time") else None
        if request.position < 0 or (request.position and time):
            checks.violate("position", "must be 1 or more, without a time, or 0")
        checks.done()
        found = await (self._own.place(request.position) if request.position else self._own.at(time))
        response = pb.FindPositionResponse(position=self._position(found.position))
        if found.recorded_at:
            response.recorded_at.CopyFrom(timestamp(found.recorded_at))
        if found.next_at:
            response.next_at.CopyFrom(timestamp(found.next_at))
        return response

    async def FindCauses(self, request: pb.FindCausesRequest, context: Context) -> pb.FindCausesResponse:
        checks = Checks()
        if request.upto < 0:
            checks.violate("upto", f"must be 1 or more, or 0; it is {request.upto}")
        checks.done()
        return pb.FindCausesResponse(causes=positions(await self._own.causes(request.upto)))

    async def CloseCut(self, request: pb.CloseCutRequest, context: Context) -> pb.CloseCutResponse:
        checks = Checks()
        cut = self._cut(checks, request.cut)
        checks.done()
        return pb.CloseCutResponse(position=self._position(await self._own.closed(cut)))

    async def GetCut(self, request: pb.GetCutRequest, context: Context) -> pb.GetCutResponse:
        checks = Checks()
        time = time_of(checks, "time", request.time) if request.HasField("time") else None
        at = request.position
        if request.HasField("position") and (not at.log or at.position < 1):
            checks.violate(
                "position", 'must name a log and its position, such as {"log": "orders", "position": 17}'
            )
        checks.done()
        if not at.log:
            return pb.GetCutResponse(cut=positions(await cuts.at_time(await self._peers.histories(), time)))
        return pb.GetCutResponse(cut=positions(await cut_at(self._peers, at.log, at.position)))

    def _position(self, position: int) -> moment_pb2.LogPosition:
        return moment_pb2.LogPosition(log=self._log.name, position=position)

    def _cut(self, checks: Checks, given: Sequence[moment_pb2.LogPosition]) -> Cut:
        cut = {each.log: each.position for each in given}
        if self._log.name not in cut:
            checks.violate("cut", f"must have a position of log {self._log.name}")
        elif len(given) > _MOST_LOGS or min(cut.values()) < 0:
            checks.violate("cut", f"must have 1 to {_MOST_LOGS} positions, each 0 or more")
        return cut


async def cut_at(peers: Peers, log: str, position: int) -> Cut:
    """The cut with a position of a log. Raises HistoryOutOfReach, EventNotFound or Unavailable."""
    found = await (await peers.history(log)).place(position)
    if found.position < position or found.recorded_at is None:
        raise EventNotFound(log=log, position=position, head=found.position)
    return await cuts.at_position(await peers.histories(), log, position, found.recorded_at)


def _event_id(checks: Checks, given: bytes) -> UUID | None:
    if not given:
        return None
    if len(given) != 16:
        checks.violate("after_event_id", f"must be the 16 bytes of a UUID; it has {len(given)}")
        return None
    return UUID(bytes=given)
