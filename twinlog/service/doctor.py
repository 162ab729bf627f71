"""Whether services could start: their settings, servers, programs and wiring, by the checks of a start.

It changes nothing: neither a database nor a stream is made, and nothing of a program runs. What would be made at start
is said. Migrations are tried in a schema that is taken back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

import asyncpg
import grpc
import grpc.aio
from nats.errors import Error as NatsError

from twinlog._aio.reasons import reason
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.connection import close, reached
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.declarations import read_otherwise
from twinlog.log.installation import Identity, named
from twinlog.log.twin import Twin, TwinDamaged, TwinMissing, TwinState
from twinlog.memory.twin import MemoryTwin
from twinlog.model.errors import ConfigurationError, TwinlogError, Unavailable, WrongSetting
from twinlog.model.personal import personal_types
from twinlog.postgres.archive import Fetch
from twinlog.postgres.connection import Pool, prepared_pool
from twinlog.postgres.database import CONNECT_SECONDS, HAS_SCHEMA, check, connect, is_missing
from twinlog.postgres.declarations import PostgresDeclarations
from twinlog.postgres.identity import identity_in, only
from twinlog.postgres.indexes import astray
from twinlog.postgres.log import PostgresLog, head_astray
from twinlog.postgres.meaning import outages
from twinlog.postgres.migrations import pending
from twinlog.postgres.source import database_behind
from twinlog.postgres.trial import Columns, NotTried, columns_after
from twinlog.postgres.urls import address_of, database_of, database_url, parted
from twinlog.rpc.host import refuse_taken
from twinlog.service.conditions import ADDRESS, STREAMS, Condition
from twinlog.service.process import StandIn
from twinlog.service.rehearsal import WIRED_SECONDS, Rehearsed, rehearse
from twinlog.service.runtime import Main
from twinlog.service.service import Service
from twinlog.service.settings import Settings, load
from twinlog.service.spec import ServiceSpec
from twinlog.service.start import Start, database_in, of_program
from twinlog.v1.inspection_pb2 import DescribeRequest
from twinlog.v1.inspection_pb2_grpc import InspectionServiceStub

_TIMEOUT_SECONDS = 10.0
_TOLERATED_SECONDS = 1.0
_SEARCH_SECONDS = 5.0
_ASK_SECONDS = 2.0
_KERNEL = "twinlog.postgres.sql"
_KEYS = "twinlog.postgres.keys_sql"
_OF_A_SETTING = re.compile(r"[A-Z][A-Z_]{3,}\b")
"""How a refusal begins that is about a setting."""


class State(Enum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WRONG = "wrong"
    """It has to be put right at the server, or in the program."""
    SETTING = "setting"
    """A setting has to be put right."""
    AWAY = "away"
    """A server does not answer."""


class Finding(NamedTuple):
    """What came of one check."""

    subject: str
    """What was checked."""
    state: State
    text: str
    """What is so, and what to do where something is wrong."""


@dataclass
class _Seen:
    """A service, as far as its servers could be asked."""

    spec: ServiceSpec
    settings: Settings
    pool: Pool
    """Connects when it is asked, and changes nothing."""
    identity: Identity | None = None
    start: Start | None = None
    """None: its tables are not there."""
    columns: Columns | None = None
    """Those that the tables have after the program's migrations; None: there are none, or they cannot be tried."""


async def examine(services: Sequence[ServiceSpec], mains: Mapping[str, Main] = {}) -> list[Finding]:
    """Checks what these services need; without any, what every service needs.

    ``mains``: their programs, by the names of the services; wiring is checked of these.
    """
    settings = _settings(services)
    findings = [finding for finding in settings if isinstance(finding, Finding)]
    loaded = [pair for pair in settings if not isinstance(pair, Finding)]
    if not loaded:
        return findings
    async with AsyncExitStack() as stack:
        services_seen, unusable = [], set[str]()
        for spec, known in loaded:
            seen = await stack.enter_async_context(_seen(spec, known)) if spec else None
            if seen:
                services_seen.append(seen)
                findings += [await _of(seen.spec, each) for each in of_program(seen.spec, known)]
            told = await _bounded(_postgres(known, seen), "Postgres")
            if any(each.state in (State.AWAY, State.SETTING) for each in told):
                unusable.add(known.postgres_url)
            findings += told
        for server, database in dict.fromkeys(_keys_of(each.settings) for each in services_seen):
            if personal_types() and server not in unusable:
                findings += await _bounded(_keys(server, database), "keys of persons")
        client: list[NatsClient] = []
        findings += await _bounded(_nats(loaded[0][1], services_seen, client, stack), "NATS")
        for seen in services_seen:
            findings += await _program(seen, mains.get(seen.spec.name), client[0] if client else None)
    return findings


@asynccontextmanager
async def _seen(spec: ServiceSpec, settings: Settings) -> AsyncIterator[_Seen]:
    url = database_url(settings.postgres_url, database_in(spec, settings))
    async with prepared_pool(url, size=2, reads_only=True) as pool:
        yield _Seen(spec, settings, pool)


async def _of(spec: ServiceSpec, condition: Condition) -> Finding:
    """Whether something holds that a start checks."""
    subject = f"start of {spec.name}"
    try:
        async with asyncio.timeout(_SEARCH_SECONDS):
            await condition.hold()
    except TimeoutError:
        took = f"it takes more than {_SEARCH_SECONDS:g} s, as where a start searches the log for what has changed"
        return Finding(subject, State.NOTE, f"{condition.name}: {took}")
    except TwinlogError as error:
        return Finding(subject, _state(error), " ".join(str(error).split()))
    return Finding(subject, State.OK, condition.name)


def _state(error: Exception) -> State:
    if isinstance(error, Unavailable) and not isinstance(error, WrongSetting):
        return State.AWAY
    return State.SETTING if _OF_A_SETTING.match(str(error)) else State.WRONG


_Loaded = tuple[ServiceSpec | None, Settings]


def _settings(services: Sequence[ServiceSpec]) -> list[Finding | _Loaded]:
    found: list[Finding | _Loaded] = []
    everybody: Sequence[ServiceSpec | None] = services or [None]
    for spec in everybody:
        subject = f"settings of {spec.name}" if spec else "settings"
        try:
            found.append((spec, load(spec.settings if spec else Settings)))
            found.append(Finding(subject, State.OK, "complete and well-formed"))
        except ConfigurationError as error:
            found.append(Finding(subject, State.SETTING, str(error)))
    return found


async def _bounded(checks: AsyncIterator[Finding], server: str) -> list[Finding]:
    """The findings of a server, up to the first that ends its checks."""
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            async for finding in checks:
                findings.append(finding)
    except TimeoutError:
        findings.append(
            Finding(server, State.AWAY, f"it did not answer in {_TIMEOUT_SECONDS:g} s; is it up?")
        )
    except WrongSetting as error:  # which is an outage once the service runs
        findings.append(Finding(server, State.SETTING, " ".join(str(error).split())))
    except Unavailable as error:
        asks = "" if str(error).endswith("?") else "; is it up, and is this its address?"
        findings.append(Finding(server, State.AWAY, f"{error}{asks}"))
    except (TwinlogError, ValueError, NatsError) as error:
        findings.append(Finding(server, State.SETTING, " ".join(str(error).split())))
    return findings


async def _postgres(settings: Settings, seen: _Seen | None) -> AsyncIterator[Finding]:
    server, spec = settings.postgres_url, seen.spec if seen else None
    if spec:
        database = database_in(spec, settings)
    else:
        given = settings.postgres_database
        database = named(settings.twinlog_namespace, given) if given else database_of(server) or "postgres"
    url, subject = database_url(server, database), f"database {database}"
    async with _connected_to(url) as connection:
        if connection is None:
            yield await _not_there(server, subject)
            return
        yield Finding(subject, State.OK, f"at {address_of(url)}: version, encoding and sessions will do")
        yield _clock(subject, await connection.fetchval("SELECT clock_timestamp()"))
        if seen and spec:
            await only(spec.log)(connection, database)
            packages = (_KERNEL, *spec.migrations)
            async for finding in _schema(connection, packages, subject, parted(database)[1]):
                yield finding
                if finding.state is State.NOTE:
                    yield await _tried(connection, packages, seen)
            seen.identity = await identity_in(connection)
            whose = (
                f"belongs to installation {seen.identity.installation}"
                if seen.identity
                else "belongs to nobody yet"
            )
            yield Finding(subject, State.OK, f"it {whose}")
            if await pending(connection, _KERNEL):
                if await connection.fetchval(_HAS_LOG):
                    what = "what is stored is compared once Twinlog's own migrations are applied"
                    yield Finding(f"start of {spec.name}", State.NOTE, f"{what}; a start does that first")
                return
            yield await _head(connection, spec, subject)
            yield await _indexes(connection.fetch, subject)
            start = Start(spec, settings, seen.pool, reads_only=True)
            for condition in start.conditions:
                yield await _of(spec, condition)
            seen.start = start


@asynccontextmanager
async def _connected_to(url: str) -> AsyncIterator[asyncpg.Connection | None]:
    """A connection to a database that will do; None where it is not there."""
    try:
        connection = await connect(url, timeout=CONNECT_SECONDS)
    except WrongSetting as error:
        if not is_missing(error.__cause__):
            raise
        yield None
        return
    try:
        with outages(address_of(url)):
            await check(connection, url)
            yield connection
    finally:
        await connection.close()


def _keys_of(settings: Settings) -> tuple[str, str]:
    """The server and the database of the keys of persons."""
    server = settings.personal_keys_url or settings.postgres_url
    return server, named(settings.twinlog_namespace, settings.personal_keys_database)


async def _keys(server: str, database: str) -> AsyncIterator[Finding]:
    subject = f"database {database}"
    async with _connected_to(database_url(server, database)) as connection:
        if connection is None:
            yield await _not_there(server, subject)
            return
        async for finding in _schema(connection, [_KEYS], subject, parted(database)[1]):
            yield finding


async def _not_there(server: str, subject: str) -> Finding:
    connection = await connect(
        server if database_of(server) else database_url(server, "postgres"), timeout=CONNECT_SECONDS
    )
    try:
        may = await connection.fetchval(
            "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
        )
    finally:
        await connection.close()
    if may:
        return Finding(subject, State.NOTE, "it is not there yet; the service makes it when it starts")
    return Finding(
        subject,
        State.WRONG,
        "it is not there, and this user may not create it: create it, or grant CREATEDB; a pooler has to know it too",
    )


def _clock(subject: str, told: datetime) -> Finding:
    ahead = (datetime.now(UTC) - told).total_seconds()
    if abs(ahead) <= _TOLERATED_SECONDS:
        return Finding("clock", State.OK, f"this machine's agrees with that of {subject}")
    direction = "ahead of" if ahead > 0 else "behind"
    return Finding(
        "clock",
        State.WRONG,
        f"this machine's is {abs(ahead):.1f} s {direction} that of {subject}, which decides; "
        "have one of them set (NTP)",
    )


_MAY_CREATE = "SELECT current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE')"
_HAS_LOG = "SELECT to_regclass('log_head') IS NOT NULL"
_MAY_CREATE_SCHEMA = "SELECT has_database_privilege(current_database(), 'CREATE')"


async def _schema(
    connection: asyncpg.Connection, packages: Sequence[str], subject: str, schema: str
) -> AsyncIterator[Finding]:
    names = [name for package in packages for name in await pending(connection, package)]
    missing = bool(schema) and not await connection.fetchval(HAS_SCHEMA, schema)
    if not names:
        yield Finding(subject, State.OK, "its tables are those of this program")
    elif await connection.fetchval(_MAY_CREATE_SCHEMA if missing else _MAY_CREATE):
        yield Finding(
            subject,
            State.NOTE,
            f"the service applies at its start: {', '.join(names)}",
        )
    else:
        yield Finding(
            subject,
            State.WRONG,
            f"this user may not set up the tables ({', '.join(names)}); use the owner of the database",
        )


async def _tried(connection: asyncpg.Connection, packages: Sequence[str], seen: _Seen) -> Finding:
    """Whether what a service applies at its start can be applied."""
    subject = f"start of {seen.spec.name}"
    try:
        async with asyncio.timeout(_SEARCH_SECONDS):
            seen.columns = await columns_after(connection, packages)
    except (NotTried, TimeoutError) as error:
        why = str(error) or f"they take more than {_SEARCH_SECONDS:g} s"
        said = f"its migrations cannot be tried here: {why}. A start that is refused takes them back"
        return Finding(subject, State.NOTE, said)
    except ConfigurationError as error:
        return Finding(subject, _state(error), " ".join(str(error).split()))
    return Finding(subject, State.OK, "its migrations, tried in a schema that was taken back")


async def _head(connection: asyncpg.Connection, spec: ServiceSpec, subject: str) -> Finding:
    """Whether the log ends where it says."""
    if astray := await head_astray(connection.fetch, spec.log):
        return Finding(subject, State.WRONG, str(astray))
    return Finding(subject, State.OK, "its log ends where table log_head says")


async def _indexes(fetch: Fetch, subject: str) -> Finding:
    """Whether its tables have their indexes."""
    if wrong := await astray(fetch):
        return Finding(subject, State.WRONG, "; ".join(f"{index.why}: {index.statement}" for index in wrong))
    return Finding(subject, State.OK, "its tables have their indexes")


async def _nats(
    settings: Settings, services: Sequence[_Seen], client: list[NatsClient], stack: AsyncExitStack
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
        return Finding(
            subject,
            State.WRONG,
            f"{state.holes} of its messages are missing; a running service makes it anew",
        )
    return Finding(subject, State.OK, f"events {state.first} to {state.last}")


class _Away(MemoryTwin):
    """A stream that cannot be asked."""

    async def state(self) -> TwinState:
        raise Unavailable(f"NATS is away, so that stream {self.name} cannot be asked")


async def _program(seen: _Seen, main: Main | None, client: NatsClient | None) -> list[Finding]:
    """What only a program shows that is wired, and whether it can listen where it is to."""
    spec, settings = seen.spec, seen.settings
    made: list[Rehearsed] = []

    def twin(log: str) -> Twin:
        if client is None:
            return _Away(log)
        return JetStreamTwin(client, log, namespace=settings.twinlog_namespace, identity=seen.identity)

    @asynccontextmanager
    async def stand_in(_spec: ServiceSpec, its: Settings) -> AsyncIterator[Service]:
        start = seen.start
        made.append(
            Rehearsed(
                spec,
                its,
                PostgresLog(seen.pool, spec.log),
                twin,
                kept_consumers=start.consumers if start else None,
                kept_views=start.views if start else None,
            )
        )
        yield made[0]

    left_out = (ADDRESS,) if client else (ADDRESS, STREAMS)
    findings = [] if main is None else await _wired(spec, main, stand_in)
    for service in made:
        for condition in service.to_hold or ():
            if condition.name not in left_out:
                findings.append(await _of(spec, condition))
        if all(each.state is State.OK for each in findings):
            findings += [await _of(spec, each) for each in _after_migrations(seen)]
        for log, types in service.followed.items() if client else ():
            findings.append(await _copy(seen, log, types, twin(log)))
    return [*findings, *await _listening(spec, settings)]


async def _copy(seen: _Seen, log: str, types: Collection[str], twin: Twin) -> Finding:
    """Whether a program reads the events of another service's log by what that service stores."""
    subject, server = f"log {log}, read by {seen.spec.name}", seen.settings.postgres_url
    try:
        async with asyncio.timeout(_SEARCH_SECONDS):
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
        why = f"it takes more than {_SEARCH_SECONDS:g} s"
    except (TwinlogError, TwinMissing, TwinDamaged) as error:
        why = reason(error)
    said = f"what its owner stores cannot be compared ({why}); have the owner's proto as it is"
    return Finding(subject, State.NOTE, said)


def _after_migrations(seen: _Seen) -> Iterator[Condition]:
    """What a start compares once it has applied them."""
    start, columns = seen.start, seen.columns
    if start and columns is not None:
        yield Condition("columns after the migrations", lambda: start.check_columns(columns))


async def _wired(spec: ServiceSpec, main: Main, stand_in: StandIn) -> list[Finding]:
    subject = f"start of {spec.name}"
    try:
        await rehearse(main, stand_in)
    except TimeoutError:
        return [
            Finding(
                subject,
                State.WRONG,
                f"main did not come to its end within {WIRED_SECONDS:g} s; let it do nothing but wire, and end with "
                "service.serve(…) or shutdown.wait()",
            )
        ]
    except TwinlogError as error:
        return [Finding(subject, _state(error), " ".join(str(error).split()))]
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
