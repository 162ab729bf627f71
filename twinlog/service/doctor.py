"""Whether services could start: their settings and servers, by the checks that they make themselves at start.

It only reads: neither a database nor a stream is made. What would be made at start is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

import asyncpg
from nats.errors import Error as NatsError

from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.connection import close
from twinlog.jetstream.connection import connect as connect_to_nats
from twinlog.jetstream.twin import JetStreamTwin
from twinlog.log.installation import Identity, named
from twinlog.log.twin import TwinDamaged, TwinMissing
from twinlog.model.errors import ConfigurationError, TwinlogError, Unavailable, WrongSetting
from twinlog.postgres.database import CONNECT_SECONDS, HAS_SCHEMA, check, connect, is_missing
from twinlog.postgres.identity import identity_in, only
from twinlog.postgres.log import head_astray
from twinlog.postgres.meaning import outages
from twinlog.postgres.migrations import pending
from twinlog.postgres.urls import address_of, database_of, database_url, parted
from twinlog.service.settings import Settings, load
from twinlog.service.spec import ServiceSpec

_TIMEOUT_SECONDS = 10.0
_TOLERATED_SECONDS = 1.0
_KERNEL = "twinlog.postgres.sql"


class State(Enum):
    """What a finding means."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing has to be done."""
    WRONG = "wrong"
    """It has to be put right at the server."""
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


async def examine(services: Sequence[ServiceSpec]) -> list[Finding]:
    """Checks what these services need; without any, what every service needs."""
    settings = _settings(services)
    findings = [finding for finding in settings if isinstance(finding, Finding)]
    loaded = [pair for pair in settings if not isinstance(pair, Finding)]
    if not loaded:
        return findings
    identities: dict[str, Identity | None] = {}
    for spec, known in loaded:
        findings += await _bounded(_postgres(spec, known, identities), "Postgres")
    return findings + await _bounded(_nats(loaded, identities), "NATS")


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
        findings.append(Finding(server, State.AWAY, f"{error}; is it up, and is this its address?"))
    except (TwinlogError, ValueError, NatsError) as error:
        findings.append(Finding(server, State.SETTING, " ".join(str(error).split())))
    return findings


async def _postgres(
    spec: ServiceSpec | None, settings: Settings, identities: dict[str, Identity | None]
) -> AsyncIterator[Finding]:
    namespace, server = settings.twinlog_namespace, settings.postgres_url
    given = settings.postgres_database or (spec.database if spec else "")
    database = named(namespace, given) if given else database_of(server) or "postgres"
    url, subject = database_url(server, database), f"database {database}"
    try:
        connection = await connect(url, timeout=CONNECT_SECONDS)
    except WrongSetting as error:
        if not is_missing(error.__cause__):
            raise
        yield await _not_there(server, subject)
        return
    try:
        with outages(address_of(url)):
            await check(connection, url)
            yield Finding(subject, State.OK, f"at {address_of(url)}: version, encoding and sessions will do")
            yield _clock(subject, await connection.fetchval("SELECT clock_timestamp()"))
            if spec:
                await only(spec.log)(connection, database)
                async for finding in _schema(connection, spec, subject, parted(database)[1]):
                    yield finding
                yield await _identity(connection, spec, settings, subject, identities)
                async for finding in _head(connection, spec, subject):
                    yield finding
    finally:
        await connection.close()


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
_MAY_CREATE_SCHEMA = "SELECT has_database_privilege(current_database(), 'CREATE')"


async def _schema(
    connection: asyncpg.Connection, spec: ServiceSpec, subject: str, schema: str
) -> AsyncIterator[Finding]:
    names = [name for package in (_KERNEL, *spec.migrations) for name in await pending(connection, package)]
    missing = bool(schema) and not await connection.fetchval(HAS_SCHEMA, schema)
    if not names:
        yield Finding(subject, State.OK, "its tables are those of this program")
    elif await connection.fetchval(_MAY_CREATE_SCHEMA if missing else _MAY_CREATE):
        yield Finding(subject, State.NOTE, f"the service applies at its start: {', '.join(names)}")
    else:
        yield Finding(
            subject,
            State.WRONG,
            f"this user may not set up the tables ({', '.join(names)}); use the owner of the database",
        )


async def _head(connection: asyncpg.Connection, spec: ServiceSpec, subject: str) -> AsyncIterator[Finding]:
    """Whether the log ends where it says; a log that is to be set up ends nowhere."""
    if await pending(connection, _KERNEL):
        return
    astray = await head_astray(connection.fetch, spec.log)
    yield Finding(
        subject, State.WRONG if astray else State.OK, str(astray or "its log ends where table log_head says")
    )


async def _identity(
    connection: asyncpg.Connection,
    spec: ServiceSpec,
    settings: Settings,
    subject: str,
    identities: dict[str, Identity | None],
) -> Finding:
    found, wanted = await identity_in(connection), settings.twinlog_installation
    identities[spec.name] = found
    if found and wanted not in ("", found.installation):
        return Finding(
            subject,
            State.SETTING,
            f"TWINLOG_INSTALLATION={wanted}: it belongs to installation {found.installation}; set it to that or leave "
            "it unset, or use another POSTGRES_URL or TWINLOG_NAMESPACE",
        )
    whose = f"belongs to installation {found.installation}" if found else "belongs to nobody yet"
    return Finding(subject, State.OK, f"it {whose}")


async def _nats(loaded: Sequence[_Loaded], identities: dict[str, Identity | None]) -> AsyncIterator[Finding]:
    _, first = loaded[0]
    async with _connected(first.nats_url) as client:
        version = client.connected_server_version
        yield Finding(
            "NATS", State.OK, f"version {version.major}.{version.minor}.{version.patch}, with JetStream"
        )
        for spec, settings in loaded:
            if spec:
                yield await _stream(client, spec, settings, identities.get(spec.name))


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


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[NatsClient]:
    client = await connect_to_nats(url, "doctor")
    try:
        yield client
    finally:
        await close(client)
