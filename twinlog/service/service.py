"""A service that owns a log, put together over its ports: the same wiring in a process and under simulation.

Leaving :meth:`Service.running` undoes it in order: cursors and timers → writer → relay.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from twinlog._aio.linger import Linger
from twinlog._aio.retrying import Together, Watched
from twinlog._aio.tasks import Tasks
from twinlog.consume import Consumer, Middleware
from twinlog.consume.cursor import BATCH, Cursor
from twinlog.consume.effects import EffectConsumer
from twinlog.consume.logged import Logged
from twinlog.consume.policies import PolicyConsumer
from twinlog.consume.projection import Projection
from twinlog.consume.view_builds import SUBJECT as VIEWS_SWITCHED
from twinlog.consume.view_builds import Kept, ViewBuilds
from twinlog.log.history import LogHistory
from twinlog.log.ports import Log
from twinlog.log.retention import KEPT
from twinlog.log.saga_list import SagaList, SagaListStore
from twinlog.memory.log import MemoryLog
from twinlog.memory.saga_list import MemorySagaList
from twinlog.model.aggregate import AnyAggregate
from twinlog.model.effects import Effects
from twinlog.model.errors import ConfigurationError, Unavailable
from twinlog.model.policies import Policies
from twinlog.model.saga_aggregate import SagaAggregate
from twinlog.model.saga_list import SAGA_INSTANCES, SHOWN
from twinlog.model.schema import Schema
from twinlog.rpc import Commands, PageTokens, Registration, SagaOperations, serve
from twinlog.rpc import Middleware as RpcMiddleware
from twinlog.rpc.dead_letter_service import DeadLetterService
from twinlog.rpc.history_service import HistoryService
from twinlog.rpc.host import refuse_taken
from twinlog.rpc.inspection import Inspected
from twinlog.rpc.inspection_service import InspectionService
from twinlog.rpc.owners import Owners
from twinlog.rpc.peers import Peers
from twinlog.rpc.registrations import registered
from twinlog.rpc.saga_service import SagaService
from twinlog.rpc.snapshot_service import SnapshotService
from twinlog.rpc.view_operations import ViewOperations
from twinlog.rpc.view_service import ViewService
from twinlog.service import mistakes
from twinlog.service.conditions import ADDRESS, STREAMS, Condition, hold, waited_for
from twinlog.service.environment import Environment
from twinlog.service.feeding import Feeding
from twinlog.service.identity import needs_identity
from twinlog.service.in_turn import InTurn
from twinlog.service.own_log import OwnLog
from twinlog.service.subscribing import Subscriber, acting, with_policies_of_sagas

_LIST_LINGER_SECONDS = 0.25
"""The pause between batches of the list of sagas: it is for operators, and no saga waits for it."""


class Service:
    """A service as it runs: its log, writer, relay and timers, and what its wiring subscribes and serves."""

    def __init__(
        self,
        name: str,
        log: Log,
        environment: Environment,
        *,
        schema: Schema,
        aggregates: Sequence[AnyAggregate] = (),
        middleware: Sequence[Middleware] = (),
        keep_requests: timedelta = KEPT,
        signals: Mapping[str, Watched] = {},
        settings: Mapping[str, str] = {},
    ) -> None:
        """``name``: the service's name, which goes on its events. ``schema`` decodes the events of its own log and of
        every log that it follows.

        ``aggregates``: those in the log; their timers are fired. ``middleware`` goes around every consumer, the first
        outermost. ``keep_requests``: how long the outcomes of requests are kept. ``signals``: further parts that health
        reports, by name. ``settings``: the settings that inspection shows.
        """
        self.name, self.log, self.schema = name, log, schema
        self.environment = environment
        self.clock, self.ids = environment.clock, environment.ids
        self.twin, self.messages = environment.twin, environment.messages
        self.settings: Any = None
        """Those of its process, of the class that its spec names; in a world their defaults."""
        self.pages = PageTokens()
        """The page tokens of its lists, signed with the secret of its database once it serves."""
        self.peers = Peers(LogHistory(log), environment.services, name)
        """The histories of its log and of the logs of the services that it knows."""
        self.sagas = [each for each in aggregates if isinstance(each, SagaAggregate)]
        """Those whose instances the log holds; twinlog.v1.SagaService shows them."""
        self.servicers: Sequence[object] = ()
        """What its wiring gave, where :func:`twinlog.open_service` has called it; :meth:`serve` serves them, too."""
        self.saga_list: SagaList | None = None
        """Where the sagas are looked up: set it before :meth:`serve` where a list is kept already; None: the kernel
        keeps one."""
        self.watched: list[Watched] = []
        """Parts whose problems make the service NOT_SERVING."""
        self.read_models: list[Collection[str]] = []
        """Of each read model, the names of the consumers that are to feed it."""
        self._feeding = feeding = Feeding(
            log,
            environment,
            twin=lambda of: self.twin(of),
            schema=schema,
            middleware=[
                *environment.observed.consumers,
                *middleware,
                Logged,
                *environment.tracing.consumers(schema),
            ],
        )
        self.dead_letters, self.leases = feeding.dead_letters, feeding.leases
        self._own = own = OwnLog(
            name, log, environment, feeding, aggregates=aggregates, schema=schema, keep_requests=keep_requests
        )
        self.writer, self.timers = own.writer, own.timers
        self.relay, self.lineage = own.relay, own.lineage
        self.personal = own.personal
        """Opens personal texts for queries, and erases persons."""
        self.signals: dict[str, Watched] = {
            "leases": Together(self.leases.values()),
            "dead-letters": self.dead_letters,
            "unreadable-streams": self.writer.unreadable,
            "timers": self.timers,
            "keys": self.personal.known,
            **signals,
        }
        """Parts whose problems call for an operator while traffic goes on, by their names in health."""
        self.inspected = Inspected(
            name,
            log,
            feeding.own_twin,
            schema,
            self.clock.now(),
            aggregates,
            settings,
            followed=feeding.followed,
            signals=self.signals,
            heads=own.heads,
            personal=own.personal,
        )
        """What inspection tells of this process."""
        self.view_builds = ViewBuilds(self._keep_build, lambda name: self.dead_letters.consumers.get(name))
        """The builds of its views; twinlog.v1.ViewService shows them."""
        self._consumers: list[Consumer] = []
        """What is subscribed, without its middleware."""
        self._held: list[tuple[Tasks, str, Coroutine[Any, Any, None]]] | None = (
            [] if environment.complete else None
        )
        """What runs once it may; None: it may."""
        self._copying, self._tasks = Tasks(environment.on_crash), Tasks(environment.on_crash)
        self._complete = environment.complete
        self._saga_services: Sequence[SagaService] | None = None
        """None: it was not asked to serve yet."""
        self._prepared: int | None = None
        """How many consumers there were when all that has to hold was checked; None: it was not yet."""
        self._ended = False
        """Whether the block of :meth:`running` was left."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Copies, writes and fires timers inside the block, and runs what is subscribed there."""
        async with aclosing(self.peers), self._copying:
            for name, work in self._own.copying():
                self._start(self._copying, name, work)
            async with self.writer:
                async with self._tasks:
                    self.start("dead letters", self.dead_letters.run())
                    for name, work in self._own.tending():
                        self.start(name, work)
                    try:
                        yield
                    finally:
                        self._ended = True
                        self.let_go()
                await self._own.drain()

    def subscribe(self, *subscribers: Subscriber, linger_seconds: float = 0.0) -> None:
        """Handles the events of a log as they come: by policies, effects or a saga, or by a consumer such as a
        projection.

        A saga hears the events of its ``sources``, each for the instance that its ``id`` names.

        Raises ConfigurationError, before any of them begins, if one is put together wrongly or clashes with another, by
        its name or table, say.

        ``linger_seconds``: the pause after every batch that is not full, so that the next one is larger. Effects have a
        separate health check, :attr:`Effects.signal`: the service goes on serving while the system that they call is
        down.
        """
        mistakes.refuse([*mistakes.in_subscribers(subscribers, linger_seconds, self._ended)], self.name)
        asked = with_policies_of_sagas(subscribers, self.name, self.sagas, self.clock)
        # A table that is wrong by itself makes no consumer.
        mistakes.refuse([*mistakes.in_tables(asked, self.schema, self.signals)], self.name)
        made = [self._consumer(one) for one in asked]
        mistakes.refuse([*mistakes.in_consumers(self._consumers, made, self.schema)], self.name)
        self._consumers += made
        self._add_views(made)
        for consumer in made:
            if isinstance(consumer, EffectConsumer):
                linger = Linger(self.writer.linger, least=linger_seconds)
                self.signals[consumer.signal] = self._feed(consumer, linger, consumer.batch)
            else:
                behind = self.writer.linger if isinstance(consumer, PolicyConsumer) else None
                self.watched.append(self._feed(consumer, Linger(behind, least=linger_seconds)))

    def refuse_unfinished(self) -> None:
        """Raises ConfigurationError if nothing feeds what is declared or read here; call it once all is subscribed."""
        wrong = [*mistakes.in_sagas(self.sagas, self._consumers)]
        wrong += mistakes.in_upcasts(self.schema, self.inspected.aggregates, self._consumers)
        wrong += mistakes.in_read_models(self.read_models, self._consumers)
        mistakes.refuse(wrong, self.name)
        if kept := self.environment.kept_consumers:
            kept.refuse_renamed(acting(self._consumers))

    def _consumer(self, asked: Policies | Effects | Consumer) -> Consumer:
        if isinstance(asked, Policies):
            return PolicyConsumer(asked, self.writer, self.log, self.schema)
        if isinstance(asked, Effects):
            return EffectConsumer(asked, self.writer, self.log, self.schema, self.environment.randomness)
        return asked

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs a background task of the service for as long as its cursors run."""
        self._start(self._tasks, name, work)

    def _start(self, among: Tasks, name: str, work: Coroutine[Any, Any, None]) -> None:
        if self._held is None:
            among.start(name, work)
        else:
            self._held.append((among, name, work))

    async def _begin(self) -> None:
        """Keeps what was checked, and runs what has waited for that."""
        environment = self.environment
        if self._complete:
            await self._complete()
            self._complete = None
        if environment.kept_views:
            with suppress(Unavailable):
                await environment.kept_views.keep()
        if environment.kept_consumers:
            await environment.kept_consumers.keep(acting(self._consumers))
        held, self._held = self._held or [], None
        for among, name, work in held:
            among.start(name, work)

    def let_go(self) -> None:
        """Leaves what has waited and is not going to run."""
        for _, _, work in self._held or []:
            work.close()

    async def page_tokens(self) -> PageTokens:
        """The page tokens of the service's lists, signed with the secret of its database."""
        self.pages.sign_with(await self.log.page_token_secret())
        return self.pages

    async def serve(self, *servicers: object, middleware: Sequence[RpcMiddleware] = ()) -> None:
        """Serves these and Twinlog's own services over gRPC until the process is asked to stop.

        ``servicers`` derive from generated classes; one may also be a triple: the servicer, the generated function that
        adds it to a server, and the service's full name. ``middleware``: see :func:`twinlog.rpc.serve`. Raises
        ConfigurationError if a stream belongs to another installation, or the services are put together wrongly.
        """
        services, sagas = self._served(servicers)
        if servicers or self._prepared != len(self._consumers):
            await self._prepare(services)
        pages = await waited_for("page tokens", self.page_tokens)
        views = [await self._view_service()] if self.view_builds.declared else []
        parts: list[Watched] = [self.relay, self.lineage, self.writer, *self.watched, self.view_builds]
        self.inspected.parts = parts
        looked_at = replace(self.inspected, log=InTurn(self.log))
        for_operators = [
            DeadLetterService(self.dead_letters, pages, self.schema),
            InspectionService(looked_at),
            HistoryService(looked_at.log, self.peers),
            SnapshotService(looked_at, pages),
            *sagas,
            *views,
        ]
        environment, endpoint = self.environment, self.environment.endpoint
        async with serve(
            [*services, *registered(for_operators)],
            address=endpoint.address,
            setting=endpoint.setting,
            domain=endpoint.domain,
            shared=endpoint.shared,
            health=parts,
            signals=self.signals,
            middleware=[
                *environment.observed.calls,
                *environment.tracing.methods(),
                *middleware,
                needs_identity,
            ],
            on_refused=environment.observed.on_refused,
        ):
            await environment.until_stopped()

    async def wired(self, servicers: Sequence[object]) -> None:
        """Checks all that has to hold before it serves these, and then has it run: its wiring is done.

        Raises ConfigurationError.
        """
        self.servicers = servicers
        services, _ = self._served()
        await self._prepare(services)

    async def _prepare(self, services: Sequence[Registration]) -> None:
        await hold(self.conditions(services))
        await self._begin()
        self._prepared = len(self._consumers)

    def _served(
        self, servicers: Sequence[object] = ()
    ) -> tuple[Sequence[Registration], Sequence[SagaService]]:
        """What it serves of its own, and for its sagas, whose list may be one more that is subscribed."""
        services = registered([*self.servicers, *servicers])
        if self._saga_services is None:
            self._saga_services = [self._saga_service(self.pages)] if self.sagas else []
        return services, self._saga_services

    def conditions(self, services: Sequence[Registration]) -> Sequence[Condition]:
        """What has to hold before it serves these, with all subscribed."""
        endpoint = self.environment.endpoint
        return [
            Condition(
                "gRPC services", lambda: mistakes.refuse([*mistakes.in_registrations(services)], self.name)
            ),
            Condition("sagas, upcasters, policies and effects", self.refuse_unfinished),
            Condition("views", self._check_views),
            Condition(STREAMS, self._feeding.refuse_foreign_streams),
            Condition(
                ADDRESS, lambda: refuse_taken(endpoint.address, endpoint.setting, shared=endpoint.shared)
            ),
        ]

    async def _check_views(self) -> None:
        if kept := self.environment.kept_views:
            projections = [each for each in self._consumers if isinstance(each, Projection)]
            await kept.check(projections, self.twin)

    def _saga_service(self, pages: PageTokens) -> SagaService:
        sagas = self.saga_list
        if sagas is None:
            self.saga_list = sagas = store = self.environment.saga_list or _in_memory(self.log)
            kept = Projection(
                f"{self.name}.saga_instances",
                [SAGA_INSTANCES],
                store,
                schema=self.schema,
                source=self.log.name,
                routing_key=SHOWN,
            )
            self.subscribe(kept, linger_seconds=_LIST_LINGER_SECONDS)
        commands = SagaOperations(Commands(self.log, self.writer), self.sagas, self.clock)
        owners = Owners(self.environment.services, self._feeding.own_twin)
        return SagaService(commands, sagas, owners, pages, self.clock)

    def _add_views(self, consumers: Sequence[Consumer]) -> None:
        began = bool(self.view_builds.declared)
        for one in consumers:
            if isinstance(one, Projection):
                self.view_builds.add(one)
        if self.view_builds.declared and not began:
            self.start("view builds", self.view_builds.run())

    async def _view_service(self) -> ViewService:
        # No query is answered from a build that is no longer live.
        await waited_for("view builds", self.view_builds.look)
        await self.messages.subscribe(VIEWS_SWITCHED, cb=self._hear_of_views)
        return ViewService(ViewOperations(self.view_builds, self.twin, self.messages))

    async def _hear_of_views(self, _message: Any) -> None:
        self.view_builds.look_soon()

    def _keep_build(self, projection: Projection, share: int) -> Kept:
        return self._feeding.fill(projection, share, open_log=self.environment.open_log, tasks=self._tasks)

    def _feed(self, consumer: Consumer, linger: Linger, batch: int = BATCH) -> Cursor:
        cursor = self._feeding.follow(consumer, linger, batch).cursor
        self.start(consumer.name, cursor.run())
        return cursor


def _in_memory(log: Log) -> SagaListStore:
    if not isinstance(log, MemoryLog):
        raise ConfigurationError(f"log {log.name} has sagas, and no saga_list says where their list is kept")
    return MemorySagaList(log)
