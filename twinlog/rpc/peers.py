"""The histories of other services' logs, asked over gRPC: twinlog.v1.HistoryService at the places of TWINLOG_SERVICES.

Who has which log is asked once, and again after a failure. Addresses are those of the settings; channels stay open.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf.message import Message

from twinlog.log.history import At, Cut, History, LogHistory, OtherHistory
from twinlog.log.past import Moment
from twinlog.log.wire import from_wire
from twinlog.model.errors import FailedPrecondition, Unavailable
from twinlog.model.event import Recorded, StreamId
from twinlog.rpc.moments import as_message
from twinlog.v1 import history_service_pb2 as pb
from twinlog.v1 import inspection_pb2 as inspection
from twinlog.v1 import moment_pb2
from twinlog.v1.history_service_pb2_grpc import HistoryServiceStub
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_SECONDS = 10.0
"""How long each question may take."""


class HistoryOutOfReach(FailedPrecondition):
    """The history of log {log} cannot be asked: {why}."""

    reason = "HISTORY_OUT_OF_REACH"


class Peers:
    """The logs of the services that work together, this one's own included."""

    def __init__(self, own: LogHistory, services: Mapping[str, str] = {}, name: str = "") -> None:
        """``services``: host:port by the name of a service; ``name``: this one's."""
        self._own = own
        self._services = {service: address for service, address in services.items() if service != name}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._owners: dict[str, str] = {}
        """The service that has a log, by log."""

    async def aclose(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    async def history(self, log: str) -> History:
        """The history of a log. Raises HistoryOutOfReach."""
        if log == self._own.name:
            return self._own
        away = {} if log in self._owners else await self._look()
        if log not in self._owners:
            known = ", ".join(sorted(self._services)) or "no service"
            none = f"TWINLOG_SERVICES names {known}, and none of them has it"
            raise HistoryOutOfReach(log=log, why="; ".join(away.values()) or none)
        return RemoteHistory(log, self._owners[log], self.channel(self._owners[log]))

    async def histories(self) -> Mapping[str, History]:
        """Those of all logs, by log. Raises HistoryOutOfReach."""
        for service, why in (await self._look()).items():
            raise HistoryOutOfReach(log=f"of {service}", why=why)
        others = {log: RemoteHistory(log, owner, self.channel(owner)) for log, owner in self._owners.items()}
        return {self._own.name: self._own, **others}

    async def ask(self, log: str, stub: type, method: str, request: Message, seconds: float) -> Any:
        """What a method of the service that has a log answers; None where it finds no such thing.

        ``stub``: the generated class. Raises HistoryOutOfReach, and Unavailable for any other failure.
        """
        await self.history(log)  # which finds its owner
        asked = stub(self.channel(self._owners[log]))
        try:
            return await getattr(asked, method)(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise Unavailable(f"{self._owners[log]} does not answer ({_said(error)})") from error

    def channel(self, service: str) -> grpc.aio.Channel:
        if service not in self._channels:
            self._channels[service] = grpc.aio.insecure_channel(self._services[service])
        return self._channels[service]

    async def _look(self) -> Mapping[str, str]:
        """Finds the owners of logs that are not known yet; gives, by service, why one cannot be asked."""
        away = {}
        for service in self._services:
            if service not in self._owners.values():
                asked: Any = InspectionServiceStub(self.channel(service))
                try:
                    described = await asked.Describe(inspection.DescribeRequest(), timeout=_SECONDS)
                except grpc.aio.AioRpcError as error:
                    away[service] = f"{service} does not answer ({_said(error)})"
                    continue
                own = next(each.log for each in described.logs if each.own)
                self._owners[own] = service
        return away


class RemoteHistory:
    """The history of a log that another service has."""

    def __init__(self, name: str, service: str, channel: grpc.aio.Channel) -> None:
        self.name = name
        self._service = service
        self._stub: Any = HistoryServiceStub(channel)

    async def events(
        self, stream: StreamId, moment: Moment, after: int = 0, after_id: UUID | None = None
    ) -> AsyncIterator[Sequence[Recorded]]:
        request = pb.ReadStreamRequest(
            stream=str(stream),
            after_version=after,
            after_event_id=after_id.bytes if after_id else b"",
            upto=as_message(moment),
        )
        try:
            async for response in self._stub.ReadStream(request, timeout=_SECONDS):
                yield [from_wire(self.name, event) for event in response.events]
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise OtherHistory(stream=str(stream), version=after) from error
            raise self._away(error) from error

    async def at(self, time: datetime | None) -> At:
        request = pb.FindPositionRequest()
        if time is not None:
            request.time.FromDatetime(time)
        return _place(await self._ask(self._stub.FindPosition, request))

    async def place(self, position: int) -> At:
        return _place(await self._ask(self._stub.FindPosition, pb.FindPositionRequest(position=position)))

    async def causes(self, upto: int) -> Cut:
        found = await self._ask(self._stub.FindCauses, pb.FindCausesRequest(upto=upto))
        return {each.log: each.position for each in found.causes}

    async def closed(self, cut: Cut) -> int:
        found = await self._ask(self._stub.CloseCut, pb.CloseCutRequest(cut=positions(cut)))
        return int(found.position.position)

    async def _ask(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._away(error) from error

    def _away(self, error: grpc.aio.AioRpcError) -> Exception:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return HistoryOutOfReach(
                log=self.name,
                why=f"{self._service} serves no twinlog.v1.HistoryService; deploy a newer version",
            )
        return Unavailable(f"{self._service}, which has log {self.name}, does not answer ({_said(error)})")


def positions(cut: Cut) -> list[moment_pb2.LogPosition]:
    """A cut as messages have it, by log."""
    return [moment_pb2.LogPosition(log=log, position=position) for log, position in sorted(cut.items())]


def _place(found: pb.FindPositionResponse) -> At:
    recorded_at, next_at = (
        getattr(found, name).ToDatetime(UTC) if found.HasField(name) else None
        for name in ("recorded_at", "next_at")
    )
    return At(found.position.position, recorded_at, next_at)


def _said(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"
