"""Starts of services that are to be refused, in one line, beside a shop that does not notice."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping

import asyncpg

from proof.chaos.pooler import PgBouncer
from proof.chaos.stage import Stage
from stack.topology import DATABASES, NAMES, ROOT, SERVICES
from twinlog.dev import EmbeddedPostgres, free_port, spawn, stop
from twinlog.testing.internals import named

_REFUSES_WITHIN_SECONDS = 180.0
_STOP_WITHIN_SECONDS = 5.0
_MISCONFIGURED = 2
SECOND = "second"
"""The namespace of a shop that shares the servers of the first."""


async def neighbor(stage: Stage) -> None:
    """A second shop, with an empty Postgres, on the NATS of the first: each of its services has to refuse."""
    async with EmbeddedPostgres(stage.rig.folder / "neighbor") as postgres:
        stage.say("a second shop comes to the same NATS")
        await all_refuse(stage, postgres.url, "TWINLOG_NAMESPACE: Stream ")
        for database in DATABASES:
            connection = await asyncpg.connect(f"{postgres.url}/{database}")
            for table in ("events", "checkpoints"):
                if rows := await connection.fetchval(f"SELECT count(*) FROM {table}"):
                    stage.complain(f"the second shop has {rows} rows in {table} of {database}")
            await connection.close()
    shutil.rmtree(stage.rig.folder / "neighbor")


async def latin1(stage: Stage) -> None:
    """A second shop in a namespace of its own, whose databases somebody has made in LATIN1."""
    databases = [named(SECOND, database) for database in DATABASES]
    async with stage.rig.connected() as operator:
        for database in databases:
            form = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
            await operator.execute(f'CREATE DATABASE "{database}" {form}')
        try:
            stage.say("a second shop comes, whose databases are in LATIN1")
            url = stage.rig.postgres.url
            await all_refuse(
                stage, url, "is encoded in LATIN1, where UTF8 is needed", TWINLOG_NAMESPACE=SECOND
            )
        finally:
            for database in databases:
                await operator.execute(f'DROP DATABASE "{database}" WITH (FORCE)')


async def poolers(stage: Stage) -> None:
    """Services come by way of a pgbouncer in each mode that parts sessions, and of one that knows no database."""
    folder, postgres = stage.rig.folder / "another", stage.rig.postgres
    for mode in ("transaction", "statement"):
        stage.say(f"the services come by way of a pgbouncer in {mode} mode")
        async with PgBouncer(folder, postgres, mode=mode) as pooler:
            await all_refuse(stage, pooler.url, "pool_mode = session")
    stage.say("the services come by way of a pgbouncer that does not know their databases")
    async with PgBouncer(folder, postgres, databases=["postgres"]) as pooler:
        await all_refuse(stage, pooler.url, "create it, and name it to the pooler")


async def all_refuse(stage: Stage, postgres_url: str, expected: str, **settings: str) -> None:
    """Starts each service once more; complains of each that does not end with a line that has ``expected``."""
    env = {**os.environ, "POSTGRES_URL": postgres_url, "NATS_URL": stage.rig.nats_url, **settings}
    for service, said in zip(NAMES, await asyncio.gather(*(_refusal(n, env) for n in NAMES)), strict=True):
        if expected not in said:
            stage.complain(f"{service}, started once more, said: {said}")


async def _refusal(service: str, env: Mapping[str, str]) -> str:
    """The last line of a service that ends with the code of a misconfiguration; what it did otherwise."""
    address = {spec.address_setting: f"127.0.0.1:{free_port()}" for spec in SERVICES if spec.name == service}
    process = await spawn([sys.executable, "-m", service], env={**env, **address}, cwd=ROOT)
    try:
        async with asyncio.timeout(_REFUSES_WITHIN_SECONDS):
            said, _ = await process.communicate()
    except TimeoutError:
        await stop(process, seconds=_STOP_WITHIN_SECONDS)
        return "nothing: it went on running"
    return said.decode().splitlines()[-1] if process.returncode == _MISCONFIGURED else f"{process.returncode}"
