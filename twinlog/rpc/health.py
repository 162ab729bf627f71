"""The standard health service, grpc.health.v1: each answer is the state of the process at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from twinlog._aio.retrying import Watched
from twinlog.model.errors import NotFound
from twinlog.rpc.context import Context

_log = structlog.get_logger(component="rpc")

OVERALL = ""
LIVENESS = "liveness"
"""SERVING as long as the process answers at all, whatever its problems: to start it anew would not help with those."""
NAME = "grpc.health.v1.Health"
PROBLEM_KEY = "x-problem"
"""The key of what is wrong, in the trailing metadata of a check; the text is ASCII, on one line."""
_LONGEST_PROBLEM = 2_000
"""gRPC's clients take some kilobytes of metadata, and end a call that brings more."""
_LOOK_EVERY_SECONDS = 0.25


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """SERVING, overall and for each service, while no part has a problem and the server is not stopping.

    A signal's problem shows under the signal's own name only: it calls for an operator, and traffic goes on.
    """

    def __init__(
        self, services: Sequence[str], parts: Sequence[Watched], signals: Mapping[str, Watched]
    ) -> None:
        self._names = {OVERALL, *services}
        self._signals = signals
        self._parts = parts
        self._stopping = False
        self._known: list[str] = []
        self._watchers = 0
        self._looking: asyncio.Task[None] | None = None
        """Looks for changes, once for all watchers."""
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """NOT_SERVING from now on: watchers are told, and their calls end."""
        self._stopping = True
        self._changed.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        status = self._status(request.service)
        if status == HealthCheckResponse.SERVICE_UNKNOWN:
            raise NotFound("Service {service} is not served here.", service=request.service)
        if problem := self._problem(request.service):
            context.set_trailing_metadata(((PROBLEM_KEY, _as_header(problem)),))
        return HealthCheckResponse(status=status)

    async def List(self, _request: Any, context: Context) -> Any:
        """A newer method of the standard: older releases of its package have neither it nor its messages."""
        names = [*self._names, LIVENESS, *self._signals]
        statuses = {name: HealthCheckResponse(status=self._status(name)) for name in names}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(
        self, request: HealthCheckRequest, context: Context
    ) -> AsyncIterator[HealthCheckResponse]:
        told: int | None = None
        with self._watched():
            while True:
                changed, stopping = self._changed, self._stopping
                status = self._status(request.service)
                if status != told:
                    yield HealthCheckResponse(status=status)
                    told = status
                if stopping:
                    return
                await changed.wait()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Looks for changes while anybody watches."""
        self._watchers += 1
        self._looking = self._looking or asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        names = [*self._names, *self._signals]
        known = [self._status(name) for name in names]
        while not self._stopping:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            if (found := [self._status(name) for name in names]) != known:
                known = found
                self._changed.set()
                self._changed = asyncio.Event()

    def _status(self, service: str) -> Any:
        if service == LIVENESS:
            return HealthCheckResponse.SERVING
        if signal := self._signals.get(service):
            return HealthCheckResponse.NOT_SERVING if signal.problem else HealthCheckResponse.SERVING
        if service not in self._names:
            return HealthCheckResponse.SERVICE_UNKNOWN
        if self._problems() or self._stopping:
            return HealthCheckResponse.NOT_SERVING
        return HealthCheckResponse.SERVING

    def _problem(self, service: str) -> str:
        """As it was when its status was looked at."""
        if signal := self._signals.get(service):
            return signal.problem or ""
        if service not in self._names:
            return ""
        return "; ".join([*self._known, "the server is stopping"] if self._stopping else self._known)

    def _problems(self) -> list[str]:
        problems = list(dict.fromkeys(problem for part in self._parts if (problem := part.problem)))
        if problems != self._known:
            _log.warning("health.changed", serving=not problems, problems=problems)
            self._known = problems
        return problems


def _as_header(problem: str) -> str:
    """A text that metadata can carry, whatever words of others are in it: what does not fit is escaped."""
    text = " ".join(problem.split()).encode("ascii", "backslashreplace").decode()
    text = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
    return text if len(text) <= _LONGEST_PROBLEM else f"{text[: _LONGEST_PROBLEM - 4]} ..."
