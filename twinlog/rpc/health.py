"""The standard health service, answered from the state of the process at the moment of the question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from twinlog._aio.watched import Watched
from twinlog.model.errors import NotFound
from twinlog.rpc.context import Context

_log = structlog.get_logger(component="rpc")

OVERALL = ""
NAME = "grpc.health.v1.Health"
PROBLEM_KEY = "x-problem"
"""In the trailing metadata of a signal's check: what it signals, in ASCII."""
_LOOK_AGAIN = 0.25


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """SERVING, overall and for each service, unless a part has a problem or the server is stopping.

    A signal's problem is told under the signal's name only: it calls for an operator, and stops no traffic.
    """

    def __init__(
        self, services: Sequence[str], parts: Sequence[Watched], signals: Mapping[str, Watched]
    ) -> None:
        self._names = {OVERALL, *services}
        self._signals = signals
        self._parts = parts
        self._stopping = asyncio.Event()
        self._known: list[str] = []

    def stop(self) -> None:
        """NOT_SERVING from now on; whoever watches hears it and is let go."""
        self._stopping.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        status = self._status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            raise NotFound("Service {service} is not served here.", service=request.service)
        if (signal := self._signals.get(request.service)) and signal.problem:
            context.set_trailing_metadata(((PROBLEM_KEY, signal.problem),))
        return HealthCheckResponse(status=status)

    async def Watch(
        self, request: HealthCheckRequest, context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        told: int | None = None
        while True:
            stopping = self._stopping.is_set()
            status = self._status(request.service)
            if status != told:
                yield HealthCheckResponse(status=status)
                told = status
            if stopping:
                return
            await self._moment()

    def _status(self, service: str) -> Any:
        if signal := self._signals.get(service):
            return HealthCheckResponse.NOT_SERVING if signal.problem else HealthCheckResponse.SERVING
        if service not in self._names:
            return HealthCheckResponse.SERVICE_UNKNOWN
        if self._problems() or self._stopping.is_set():
            return HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse.SERVING

    def _problems(self) -> list[str]:
        problems = [problem for part in self._parts if (problem := part.problem)]
        if problems != self._known:
            _log.warning("health.changed", serving=not problems, problems=problems)
            self._known = problems
        return problems

    async def _moment(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN):
                await self._stopping.wait()
