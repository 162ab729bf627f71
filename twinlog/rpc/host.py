"""Hosts servicers on one port, with health, reflection and rich errors, and stops them gracefully."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION

from twinlog._aio.reasons import reason
from twinlog._aio.retrying import Watched
from twinlog.model.errors import ConfigurationError
from twinlog.rpc.accepting import Acceptor
from twinlog.rpc.gone import keep_quiet
from twinlog.rpc.handlers import OURS, Boundary, Middleware, OnRefused
from twinlog.rpc.health import NAME as HEALTH
from twinlog.rpc.health import Health
from twinlog.rpc.registrations import Registration
from twinlog.rpc.streams import StreamLimits

_log = structlog.get_logger(component="rpc")

_HIGHEST_PORT = 65535
_GOODBYE_SECONDS = 0.02
"""What clients get to hear that the server goes away, before they hear their refusals."""
_BIND_TRIES, _BIND_AGAIN_SECONDS = 5, 0.05

_HANDSHAKE_MILLISECONDS = 10_000
_CONNECTION_MILLISECONDS, _LEAVING_MILLISECONDS = 3_600_000, 3_700_000
"""How old a connection may be, and how long calls on it may go on then: longer than any stream that is read."""

_HEALTH = StreamLimits(most=512, per_connection=16, idle_seconds=3600.0, oldest_gives_way=True)
"""Health is never refused: a watcher too many ends the oldest, which watches again."""
_OPERATORS_CALLS, _OPERATORS_STREAMS = 256, StreamLimits(most=512)
"""What the library's own services take on, which operators, the console and the command ask: while there is too much to
do, too."""
_REFLECTION = StreamLimits(most=128, per_connection=16, idle_seconds=60.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes on."""

    message_bytes: int = 256 * 1024
    """A larger request is refused with RESOURCE_EXHAUSTED, before it is read."""
    concurrent_calls: int = 4096
    """More unary calls than this at once are refused with RESOURCE_EXHAUSTED; health checks never are, and what
    operators ask has a limit of its own."""
    streams: StreamLimits = field(default_factory=StreamLimits)
    """Response streams of the services."""
    connection_calls: int = 320
    """Calls and streams at once on one connection; gRPC's clients hold back what is more. Others get REFUSED_STREAM."""
    grace: float = 2.5
    """Seconds that calls in flight have to finish when the server stops."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that is up."""

    address: str
    """Where it listens; if port 0 was asked for, with the port that it got."""


@asynccontextmanager
async def serve(
    services: Sequence[Registration],
    *,
    address: str = "127.0.0.1:0",
    domain: str,
    setting: str = "the address",
    shared: bool = False,
    health: Sequence[Watched] = (),
    signals: Mapping[str, Watched] = {},
    limits: Limits = Limits(),
    middleware: Sequence[Middleware] = (),
    on_refused: OnRefused = lambda _method, _reason: None,
) -> AsyncIterator[Server]:
    """Serves ``services`` while the block runs; leaving it, lets calls in flight finish.

    ``domain`` is the ErrorInfo domain. ``setting`` names the setting that ``address`` came from, for the
    :class:`ConfigurationError` that is raised if the address cannot be had. ``shared``: replicas that all say so may
    listen there together; the system distributes connections among them. ``health``: the parts of the process whose
    problems make it NOT_SERVING; ``signals``: parts whose problems show only under their own names. ``middleware`` goes
    around every method of ``services``, the first outermost; ``on_refused`` is called for calls that never reach it.
    """
    keep_quiet()
    names = [name for _, _, name in services]
    crowd = Boundary(
        domain,
        middleware,
        most_calls=limits.concurrent_calls,
        streams=limits.streams,
        on_refused=on_refused,
    )
    operators = Boundary(
        domain, middleware, most_calls=_OPERATORS_CALLS, streams=_OPERATORS_STREAMS, on_refused=on_refused
    )
    # Its own limit of concurrent calls counts streams and health checks, too.
    acceptor = Acceptor(_options(limits, shared))
    server = acceptor.server
    checker = Health(names, health, signals)
    for servicer, add, name in services:
        add(servicer, _Registrar(acceptor, operators if name.startswith(OURS) else crowd))
    # Each within a boundary of its own: neither takes anything from the services, and health tells its watchers itself.
    health_pb2_grpc.add_HealthServicer_to_server(
        checker, _Registrar(acceptor, Boundary(domain, streams=_HEALTH))
    )
    reflecting = Boundary(domain, streams=_REFLECTION)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        ReflectionServicer([*names, HEALTH, REFLECTION]), _Registrar(acceptor, reflecting)
    )
    bound = await _bind(server, address, setting, shared)
    await acceptor.start()
    _log.info("rpc.serving", address=bound, services=names)
    try:
        yield Server(bound)
    finally:
        checker.stop()
        for each in (crowd, operators, reflecting):
            each.end_streams()
        await asyncio.gather(*(each.hold_calls(lambda: acceptor.waiting) for each in (crowd, operators)))
        stopped = asyncio.ensure_future(acceptor.stop(limits.grace))
        await asyncio.sleep(_GOODBYE_SECONDS)
        crowd.refuse_held()
        operators.refuse_held()
        await stopped
        _log.info("rpc.stopped", address=bound)


class _Registrar:
    """Stands in for the server where generated code adds handlers, and wraps each."""

    def __init__(self, acceptor: Acceptor, boundary: Boundary) -> None:
        self._acceptor = acceptor
        self._boundary = boundary

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Generated code gives every handler twice; the other way names the methods."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self._acceptor.add(
            service,
            {
                method: self._boundary.wrap(f"{service}/{method}", handler)
                for method, handler in handlers.items()
            },
        )


def _options(limits: Limits, shared: bool) -> list[tuple[str, int]]:
    return [
        # Two processes on one port share its connections at random: refuse the second, unless that is what is meant.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", limits.message_bytes),
        # Past 1,000 calls that are not picked up yet, gRPC cancels some at random; our own limits are what refuses, and
        # they say so.
        ("grpc.server.max_pending_requests", 2 * limits.concurrent_calls),
        ("grpc.server.max_pending_requests_hard_limit", 4 * limits.concurrent_calls),
        ("grpc.max_concurrent_streams", limits.connection_calls),
        # It refuses calls of clients that keep to the limit, by counting also those that are answered and not yet
        # forgotten. Calls that are begun only to be reset are bounded by the limits above.
        ("grpc.http.overload_protection", 0),
        # Who connects and says nothing holds a file descriptor; by default for two minutes.
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MILLISECONDS),
        # Calls whose clients send no request, or read no answer, end with their connection only: no status can be sent.
        ("grpc.max_connection_age_ms", _CONNECTION_MILLISECONDS),
        ("grpc.max_connection_age_grace_ms", _LEAVING_MILLISECONDS),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may keep an idle connection alive by pings, every ten seconds at most.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


async def _bind(server: grpc.aio.Server, address: str, setting: str, shared: bool) -> str:
    """Binds; the address that it got. gRPC itself says too little of a failure, and says it on stderr.

    Raises ConfigurationError where the address cannot be had. Where it was free a moment before, somebody looked at the
    same time, as a search for a free port does: then it is tried again, and the next look says what is wrong.
    """
    why: object = ""
    for _ in range(_BIND_TRIES):
        refuse_taken(address, setting, shared=shared)
        try:
            return f"{address.rpartition(':')[0]}:{server.add_insecure_port(address)}"
        except RuntimeError as error:
            why = error
            await asyncio.sleep(_BIND_AGAIN_SECONDS)
    raise _taken(address, setting, why)


def refuse_taken(address: str, setting: str, *, shared: bool) -> None:
    """Raises ConfigurationError where an address cannot be had now."""
    host, _, port = address.rpartition(":")
    try:
        _probe(host.strip("[]"), int(port), shared)
    except (OSError, ValueError) as error:
        raise _taken(address, setting, reason(error)) from error


def _taken(address: str, setting: str, why: object) -> ConfigurationError:
    return ConfigurationError(
        "{setting}: cannot listen on {address} ({why}); stop what uses it or set {setting} to another host:port",
        setting=setting,
        address=address,
        why=why,
    )


def _probe(host: str, port: int, shared: bool) -> None:
    if not 0 <= port <= _HIGHEST_PORT:
        raise ValueError(f"a port is 0 to {_HIGHEST_PORT}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, port), family=family, reuse_port=shared).close()
