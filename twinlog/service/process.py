"""A service in its own process, as :func:`twinlog.run` runs it: over Postgres and JetStream, with settings and logs.

Leaving the block undoes it in order: no new calls → calls in flight → cursors → writer → relay → connections.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import asyncpg
import structlog
from nats.errors import Error as NatsError

from twinlog.consume import Middleware
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.connection import close, connect
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.held import Held
from twinlog.log.installation import named
from twinlog.log.keys import ConnectedKeys, RememberedKeys, require_cipher
from twinlog.log.lease import holder_of, is_here
from twinlog.log.system import RandomIds, StoreClock, SystemClock
from twinlog.log.wrapping import Wrapping, wrapping_keys
from twinlog.memory.keys import MemoryKeys
from twinlog.model.clock import Clock
from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.model.forms import Form, Forms, WrongForm, one, refuse_other
from twinlog.model.forms import shown as in_words
from twinlog.model.personal import personal_types
from twinlog.observe.tracing import exporting, tracing
from twinlog.postgres.connection import stop_waiting, until_available
from twinlog.postgres.identity import only
from twinlog.postgres.keys import PostgresErasures
from twinlog.postgres.lease import PostgresLeases
from twinlog.postgres.log import PostgresLog, open_log
from twinlog.postgres.migrations import pending
from twinlog.postgres.saga_list import PostgresSagaList
from twinlog.postgres.source import log_of
from twinlog.service import runtime
from twinlog.service.conditions import hold
from twinlog.service.dump import Line
from twinlog.service.environment import Endpoint, Environment, Observed
from twinlog.service.logging import configure_logging
from twinlog.service.mistakes import refuse
from twinlog.service.runtime import Main, Shutdown
from twinlog.service.service import Service
from twinlog.service.settings import Settings, load, services_in, shown
from twinlog.service.spec import ServiceSpec
from twinlog.service.spec_mistakes import in_spec
from twinlog.service.start import Start, database_in, of_program, signing
from twinlog.service.wiring import Wire, wire_up

if TYPE_CHECKING:
    from twinlog.observe.metrics.process import Metrics
    from twinlog.observe.tracing_spans import Tracer

StandIn = Callable[[ServiceSpec, Settings], AbstractAsyncContextManager[Service]]
STAND_IN: ContextVar[StandIn | None] = ContextVar("STAND_IN", default=None)
"""Makes the service instead: an audit asks a program how it is wired, and runs nothing."""


_FORMS: Forms = {
    "spec": one(ServiceSpec, "a ServiceSpec"),
    "settings": one(Settings, "the settings themselves, load(SPEC.settings)"),
    "wire": Form(lambda given: given is None or callable(given), "a function of the service and its views"),
    "middleware": Form(
        lambda given: isinstance(given, Sequence) and all(map(callable, given)),
        "functions around a consumer, in a list",
    ),
}


class Wired(asyncio.CancelledError):
    """Ends a program's ``main`` that is asked for nothing but its wiring, as a cancellation does."""


@asynccontextmanager
async def open_service(
    spec: ServiceSpec,
    settings: Settings,
    shutdown: Shutdown,
    *,
    wire: Wire | None = None,
    middleware: Sequence[Middleware] = (),
) -> AsyncIterator[Service]:
    """A service with its log in its database; waits for servers that are not there yet.

    ``wire``: as that of :func:`twinlog.run`. It is called before the block begins; then all that has to hold is
    checked, and only then migrations are applied and anything runs, so that a start that is refused changes nothing.
    What it gives is :attr:`Service.servicers`, which :meth:`Service.serve` serves. ``twinlog audit`` and ``doctor`` end
    a ``main`` there. Without it, migrations are applied and the service runs before the block begins.

    ``middleware``: see :class:`~twinlog.service.service.Service`. Raises ConfigurationError.
    """
    refuse_other(
        "open_service", {"spec": spec, "settings": settings, "wire": wire, "middleware": middleware}, _FORMS
    )
    if spec.address not in type(settings).model_fields:
        what = f"settings is {in_words(settings)} without {spec.address}; give load(SPEC.settings)"
        raise WrongForm(of="open_service", what=what)
    if stand_in := STAND_IN.get():
        refuse(list(in_spec(spec)), spec.name)
        async with stand_in(spec, settings) as service:
            if wire:
                await wire_up(service, spec, wire)
                raise Wired
            yield service
        return
    await hold(of_program(spec, settings))
    configure_logging(settings.log_level, settings.log_format)
    async with (
        exporting(spec.name) as tracer,
        _opened(spec, settings, shutdown, middleware, tracer, waits=wire is not None) as service,
    ):
        if wire:
            await wire_up(service, spec, wire)
        yield service


@asynccontextmanager
async def _opened(
    spec: ServiceSpec,
    settings: Settings,
    shutdown: Shutdown,
    middleware: Sequence[Middleware],
    tracer: Tracer | None,
    *,
    waits: bool,
) -> AsyncIterator[Service]:
    client = await connect(settings.nats_url, spec.name)
    ids, namespace = RandomIds(), settings.twinlog_namespace
    missing: list[str] = []
    try:
        async with (
            _own_log(spec, settings, missing if waits else None) as own,
            opened_keys(settings) as keys,
        ):
            clock = StoreClock(own.time, SystemClock())
            await until_available("clock", clock.measure)
            start = Start(spec, settings, own.pool)
            for condition in start.conditions:
                await until_available(condition.name, condition.hold)
            if not waits:
                await until_available("what is declared", start.keep)
            identity = start.identity
            assert identity is not None
            own.installation, own.packages = identity.installation, spec.migrations
            remembered = await _remembered(keys, own)
            metrics = _metrics(clock) if settings.metrics_address else None
            service = Service(
                spec.name,
                own,
                Environment(
                    twin=lambda of: JetStreamTwin(
                        client, of, replicas=settings.stream_replicas, namespace=namespace, identity=identity
                    ),
                    lease=PostgresLeases(own.pool, lambda: f"{spec.name}-{ids.uuid7()}"),
                    clock=clock,
                    ids=ids,
                    on_crash=shutdown.crash,
                    messages=_Messages(client, namespace),
                    endpoint=endpoint(spec, settings),
                    until_stopped=shutdown.wait,
                    services=services_in(settings.twinlog_services),
                    open_log=lambda log, twin: log_of(settings.postgres_url, log, twin),
                    observed=observed(metrics),
                    tracing=tracing(tracer, clock),
                    sign=signing(settings.chain_key_file),
                    keys=remembered or MemoryKeys(),
                    saga_list=PostgresSagaList(own),
                    kept_consumers=start.consumers,
                    kept_views=start.views,
                    complete=partial(_complete, start, missing) if waits else None,
                ),
                schema=spec.schema,
                aggregates=spec.aggregates,
                middleware=middleware,
                keep_requests=timedelta(days=settings.keep_requests_days),
                signals={"clock": clock},
                settings=shown(settings) | {"POSTGRES_DATABASE": settings.postgres_database or spec.database},
            )
            service.settings = settings
            shutdown.dump.add(lambda: parts_of(service))
            told = metrics.served(service, settings.metrics_address) if metrics else nullcontext()
            async with service.running(), told:
                service.start("clock", clock.run())
                held = Held(spec.log, own.holders, lambda: service.writer.append_seconds > 0)
                service.watched.append(held)
                service.start("held", held.run())
                yield service
                stop_waiting(own.pool)
    finally:
        await close(client)


async def _complete(start: Start, missing: Sequence[str]) -> None:
    """Applies what the program's tables lack, unless its views then are not what they were, and keeps what was
    checked."""
    if missing:
        await until_available("migrations", start.migrate)
    await until_available("what is declared", start.keep)


def _own_log(
    spec: ServiceSpec, settings: Settings, missing: list[str] | None
) -> AbstractAsyncContextManager[PostgresLog]:
    """The service's log in its database. ``missing``: gets the migrations of the program itself, which are left for
    later; None: they are applied now."""
    admit = only(spec.log)

    async def admit_and_look(connection: asyncpg.Connection, database: str) -> None:
        await admit(connection, database)
        assert missing is not None
        missing[:] = [each for package in spec.migrations for each in await pending(connection, package)]

    return open_log(
        settings.postgres_url,
        database_in(spec, settings),
        spec.log,
        *(spec.migrations if missing is None else ()),
        size=settings.postgres_connections,
        admit=admit if missing is None else admit_and_look,
    )


def endpoint(spec: ServiceSpec, settings: Settings) -> Endpoint:
    """Where a service is called, by its settings."""
    return Endpoint(spec.address_in(settings), spec.address_setting, spec.domain, settings.share_port)


@asynccontextmanager
async def opened_keys(settings: Settings) -> AsyncIterator[ConnectedKeys | None]:
    """The keys of persons; None where no event that this program knows has personal fields.

    Raises ConfigurationError, also where nothing can encrypt.
    """
    if not (types := personal_types()):
        yield None
        return
    require_cipher(types)
    from twinlog.postgres.keys import open_keys_by_and_by  # with what encrypts: only here is it needed

    server = settings.personal_keys_url or settings.postgres_url
    database = named(settings.twinlog_namespace, settings.personal_keys_database)
    wrapping = Wrapping(wrapping_keys(settings.personal_wrapping_keys))
    async with open_keys_by_and_by(server, database, wrapping) as keys:
        yield keys


async def _remembered(keys: ConnectedKeys | None, own: PostgresLog) -> RememberedKeys | None:
    """Keys of which none comes back once it is destroyed; None where the program has none.

    Those that a backup brought back are destroyed at once or, while the keys are away, before the first one is read.
    """
    if keys is None:
        return None
    remembered = RememberedKeys(keys, PostgresErasures(own.pool))
    with suppress(Unavailable):
        await remembered.agree()
    return remembered


def _metrics(clock: Clock) -> Metrics:
    """Loaded only where it is asked for."""
    from twinlog.observe.metrics.process import Metrics

    return Metrics(clock)


def observed(metrics: Metrics | None) -> Observed:
    """What goes around the parts of a service for its metrics."""
    if metrics is None:
        return Observed()
    return Observed(metrics.log, [metrics.call], [metrics.consumer], metrics.refused)


class _Messages:
    """Short messages between the replicas of one installation."""

    def __init__(self, client: NatsClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    async def publish(self, subject: str, payload: bytes) -> None:
        try:
            await self._client.publish(named(self._namespace, subject), payload)
        except NatsError as error:
            structlog.get_logger().debug("message.lost", subject=subject, error=str(error))

    async def subscribe(self, subject: str, *, cb: Callable[[Any], Awaitable[None]]) -> Any:
        return await self._client.subscribe(named(self._namespace, subject), cb=cb)


def run(program: Main | ServiceSpec, wire: Wire | None = None, /) -> int:
    """Runs a service until it is asked to stop, and ends the process: ``run(SPEC, wire)`` is a whole ``__main__``.

    ``wire`` gets the service and the store that the spec's ``views`` makes. It subscribes policies, projections,
    effects and sagas, and returns the service's servicer, a tuple of several, or None. :class:`~twinlog.testing.Hosted`
    takes the same function.

    An async function ``main(shutdown)`` may take the place of both and do what it likes, such as :func:`open_service`;
    ``run`` then returns the exit code, for ``sys.exit``.

    SIGTERM, SIGINT and SIGHUP, which is ignored under nohup, request the :class:`Shutdown`; a second signal cuts it
    short. The code is 0 after an orderly stop, 1 after a crash, and 2 after a :class:`ConfigurationError`, which is one
    line on stderr. On SIGUSR1, SIGUSR2 and SIGQUIT the process writes to stderr what it is doing, even while its event
    loop hangs.
    """
    if isinstance(program, ServiceSpec) and wire is not None:
        sys.exit(runtime.run(main_of(program, wire)))
    if not isinstance(program, ServiceSpec) and callable(program) and wire is None:
        return runtime.run(program)
    raise ConfigurationError(
        "run takes a spec and what wires its service, run(SPEC, wire), or run(main) alone"
    )


def main_of(spec: ServiceSpec, wire: Wire) -> Main:
    """The ``main`` of a service's program: with the spec's settings and views, wired and served."""

    async def main(shutdown: Shutdown) -> None:
        async with open_service(spec, load(spec.settings), shutdown, wire=wire) as service:
            await service.serve()

    return main


def parts_of(service: Service) -> Iterator[tuple[str, Line]]:
    """The parts of a service: queues, positions, connections and problems, as they are in memory now."""
    yield "writer", service.writer.dumped()
    yield "relay", service.relay.dumped()
    for _, handler, cursor, _, lease in service.inspected.followed:
        yield (
            "consumer",
            {
                **cursor.dumped(),
                "log": handler.source,
                "here": is_here(lease),
                "holder": holder_of(lease) or None,
                "dead_letters": handler.count,
            },
        )
    if isinstance(service.log, PostgresLog):
        yield "pool", service.log.dumped()
    for problem in service.inspected.problems():
        yield "problem", {"signal": problem.signal or None, "problem": problem.problem}
