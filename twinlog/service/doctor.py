"""Whether services could start: their settings, servers, programs and wiring, by the checks of a start.

It changes nothing: neither a database nor a stream is made, and nothing of a program runs. What would be made at start
is said. Migrations are tried in a schema that is taken back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc
import grpc.aio

from twinlog._aio.reasons import reason
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.connection import close, reached
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.declarations import read_otherwise
from twinlog.log.installation import Identity
from twinlog.log.twin import Twin, TwinDamaged, TwinMissing, TwinState
from twinlog.memory.twin import MemoryTwin
from twinlog.model.errors import ConfigurationError, TwinlogError, Unavailable
from twinlog.model.personal import personal_types
from twinlog.postgres.connection import prepared_pool
from twinlog.postgres.declarations import PostgresDeclarations
from twinlog.postgres.log import PostgresLog
from twinlog.postgres.source import database_behind
from twinlog.postgres.urls import database_url
from twinlog.rpc.host import refuse_taken
from twinlog.service.conditions import ADDRESS, STREAMS, Condition
from twinlog.service.doctor_findings import SEARCH_SECONDS, Finding, State, bounded, held, state_of
from twinlog.service.doctor_postgres import Seen, keys_database, keys_of, service_database
from twinlog.service.process import StandIn
from twinlog.service.rehearsal import WIRED_SECONDS, Rehearsed, rehearse
from twinlog.service.runtime import Main
from twinlog.service.service import Service
from twinlog.service.settings import Settings, load
from twinlog.service.spec import ServiceSpec
from twinlog.service.start import database_in, of_program
from twinlog.v1.inspection_pb2 import DescribeRequest
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_ASK_SECONDS = 2.0


async def examine(services: Sequence[ServiceSpec], mains: Mapping[str, Main] = {}) -> list[Finding]:
    """Checks what these services need; without any, what every service needs.

    ``mains``: their programs, by the names of the services; wiring is checked of these.
    """
    findings, loaded = _settings(services)
    if not loaded:
        return findings
    async with AsyncExitStack() as stack:
        services_seen, unusable = [], set[str]()
        for spec, known in loaded:
            seen = await stack.enter_async_context(_seen(spec, known)) if spec else None
            if seen:
                services_seen.append(seen)
                findings += [await held(seen.spec, each) for each in of_program(seen.spec, known)]
            told = await bounded(service_database(known, seen), "Postgres")
            if any(each.state in (State.AWAY, State.SETTING) for each in told):
                unusable.add(known.postgres_url)
            findings += told
        for server, database in dict.fromkeys(keys_of(each.settings) for each in services_seen):
            if personal_types() and server not in unusable:
                findings += await bounded(keys_database(server, database), "keys of persons")
        client: list[NatsClient] = []
        findings += await bounded(_nats(loaded[0][1], services_seen, client, stack), "NATS")
        for seen in services_seen:
            findings += await _program(seen, mains.get(seen.spec.name), client[0] if client else None)
    return findings


@asynccontextmanager
async def _seen(spec: ServiceSpec, settings: Settings) -> AsyncIterator[Seen]:
    url = database_url(settings.postgres_url, database_in(spec, settings))
    async with prepared_pool(url, size=2, reads_only=True) as pool:
        yield Seen(spec, settings, pool)


def _settings(
    services: Sequence[ServiceSpec],
) -> tuple[list[Finding], list[tuple[ServiceSpec | None, Settings]]]:
    """What is found of them, and those that can be loaded."""
    findings, loaded = [], list[tuple[ServiceSpec | None, Settings]]()
    everybody: Sequence[ServiceSpec | None] = services or [None]
    for spec in everybody:
        subject = f"settings of {spec.name}" if spec else "settings"
        try:
            loaded.append((spec, load(spec.settings if spec else Settings)))
            findings.append(Finding(subject, State.OK, "complete and well-formed"))
        except ConfigurationError as error:
            findings.append(Finding(subject, State.SETTING, str(error)))
    return findings, loaded


async def _nats(
    settings: Settings, services: Sequence[Seen], client: list[NatsClient], stack: AsyncExitStack
) -> AsyncIterator[Finding]:
    """``client``: gets the connection, once it is there; ``stack`` closes it."""
    connected = await reached(settings.nats_url, "doctor")
    stack.push_async_callback(close, connected)
    client.append(connected)
    version = connected.connected_server_version
    yield Finding(
        "NATS", State.OK, f"version {version.major}.{version.minor}.{version.patch}, with JetStream"
    )
    for each in services:
        yield await _stream(connected, each.spec, each.settings, each.identity)


async def _stream(
    client: NatsClient, spec: ServiceSpec, settings: Settings, identity: Identity | None
) -> Finding:
    twin = JetStreamTwin(client, spec.log, namespace=settings.twinlog_namespace, identity=identity)
    subject = f"stream {twin.name}"
    try:
        state = await twin.state()
    except TwinMissing:
        return Finding(subject, State.NOTE, "it is not there yet; the service makes it when it starts")
    except TwinDamaged as error:
        return Finding(subject, State.WRONG, str(error))
    if state.holes:
        what = f"{state.holes} of its messages are missing; a running service makes it anew"
        return Finding(subject, State.WRONG, what)
    there = f"events {state.first} to {state.last}" if state.first <= state.last else "it has no events"
    return Finding(subject, State.OK, there)


class _Away(MemoryTwin):
    """A stream that cannot be asked."""

    async def state(self) -> TwinState:
        raise Unavailable(f"NATS is away, so that stream {self.name} cannot be asked")


async def _program(seen: Seen, main: Main | None, client: NatsClient | None) -> list[Finding]:
    """What only a program shows that is wired, and whether it can listen where it is to."""
    spec, settings = seen.spec, seen.settings
    made: list[Rehearsed] = []

    def twin(log: str) -> Twin:
        if client is None:
            return _Away(log)
        return JetStreamTwin(client, log, namespace=settings.twinlog_namespace, identity=seen.identity)

    @asynccontextmanager
    async def stand_in(_spec: ServiceSpec, its: Settings) -> AsyncIterator[Service]:
        made.append(Rehearsed(spec, its, PostgresLog(seen.pool, spec.log), twin, seen.start))
        yield made[0]

    left_out = (ADDRESS,) if client else (ADDRESS, STREAMS)
    findings = [] if main is None else await _wired(spec, main, stand_in)
    for service in made:
        for condition in service.to_hold or ():
            if condition.name not in left_out:
                findings.append(await held(spec, condition))
        start, columns = seen.start, seen.columns
        if all(each.state is State.OK for each in findings) and start and columns is not None:
            compared = Condition("columns after the migrations", partial(start.check_columns, columns))
            findings.append(await held(spec, compared))
        for log, types in service.followed.items() if client else ():
            findings.append(await _copy(seen, log, types, twin(log)))
    return [*findings, *await _listening(spec, settings)]


async def _copy(seen: Seen, log: str, types: Collection[str], twin: Twin) -> Finding:
    """Whether a program reads the events of another service's log by what that service stores."""
    subject, server = f"log {log}, read by {seen.spec.name}", seen.settings.postgres_url
    try:
        async with asyncio.timeout(SEARCH_SECONDS):
            if database := await database_behind(server, twin):
                async with prepared_pool(database_url(server, database), size=1, reads_only=True) as pool:
                    wrong = read_otherwise(await PostgresDeclarations(pool).kept(), types)
                if not wrong:
                    return Finding(subject, State.OK, "its events are read as its owner stores them")
                way_out = "take the owner's proto as it is, by `buf export`, say, and generate its code anew"
                what = f"its owner stores them otherwise than this program reads them: {'; '.join(wrong)}"
                return Finding(subject, State.WRONG, f"{what}; {way_out}")
            why = "its stream is empty, or no database of this server shows it"
    except TimeoutError:
        why = f"it takes more than {SEARCH_SECONDS:g} s"
    except (TwinlogError, TwinMissing, TwinDamaged) as error:
        why = reason(error)
    said = f"what its owner stores cannot be compared ({why}); have the owner's proto as it is"
    return Finding(subject, State.NOTE, said)


async def _wired(spec: ServiceSpec, main: Main, stand_in: StandIn) -> list[Finding]:
    subject = f"start of {spec.name}"
    try:
        await rehearse(main, stand_in)
    except TimeoutError:
        late = f"main did not come to its end within {WIRED_SECONDS:g} s"
        way_out = "let it do nothing but wire, and end with service.serve(…) or shutdown.wait()"
        return [Finding(subject, State.WRONG, f"{late}; {way_out}")]
    except TwinlogError as error:
        return [Finding(subject, state_of(error), " ".join(str(error).split()))]
    except Exception as error:  # whatever the project's own code raises
        said = f"its wiring raises {type(error).__name__}: {error}; a start would crash with that"
        return [Finding(subject, State.WRONG, said)]
    return [Finding(subject, State.OK, "wiring")]


async def _listening(spec: ServiceSpec, settings: Settings) -> list[Finding]:
    """Whether the service can listen where it is to, or does already."""
    subject, address = f"address of {spec.name}", spec.address_in(settings)
    there = await _who(address)
    if there == spec.name:
        return [Finding(subject, State.OK, f"it serves at {address}")]
    wanted = [(spec.address_setting, address, settings.share_port)]
    if settings.metrics_address:
        wanted.append(("METRICS_ADDRESS", settings.metrics_address, False))
    findings = []
    for setting, wants, shared in wanted:
        try:
            refuse_taken(wants, setting, shared=shared)
            findings.append(Finding(subject, State.OK, f"{wants} is free"))
        except ConfigurationError as error:
            who = f"; {there} serves there" if there and wants == address else ""
            findings.append(Finding(subject, State.SETTING, f"{error}{who}"))
    return findings


async def _who(address: str) -> str:
    """The service that serves there; empty: none that says."""
    if address.endswith(":0"):
        return ""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            asked = InspectionServiceStub(channel).Describe(DescribeRequest(), timeout=_ASK_SECONDS)
            return str((await asked).service)
        except grpc.aio.AioRpcError:
            return ""
