"""The pytest plugin: light until a fixture is used, and every test has its own part of the servers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import asyncpg
from pydantic import TypeAdapter

from stack.topology import ROOT
from tests import servers
from twinlog.jetstream import connection as jetstream
from twinlog.log.installation import named
from twinlog.service.settings import Namespace
from twinlog.testing.internals import JetStreamTwin, database_url
from twinlog.testing.servers import namespace as namespaced

HEAVY = {"asyncpg", "grpc", "nats", "structlog", "pydantic", "psutil", "twinlog.dev"}


def test_loading_it_loads_no_server_and_no_client() -> None:
    code = "import sys, pytest, twinlog.testing.plugin; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    assert not HEAVY & set(done.stdout.split())


def test_the_distribution_names_it() -> None:
    text = Path(ROOT, "pyproject.toml").read_text()
    assert '[project.entry-points.pytest11]\n"twinlog.testing.plugin" = "twinlog.testing.plugin"\n' in text


async def test_a_database_is_empty(postgres_url: str, database: str) -> None:
    await servers.execute(postgres_url, "CREATE TABLE mine ()", database)


async def test_what_a_namespace_names_is_gone_after_the_test(postgres_url: str, nats_url: str) -> None:
    async with namespaced(postgres_url, nats_url) as namespace:
        own = named(namespace, "orders")
        await servers.execute(postgres_url, f"CREATE DATABASE {own}")
        client = await jetstream.connect(nats_url, "tests")
        await JetStreamTwin(client, own).create(1)
    try:
        assert own not in {info.config.name for info in await client.jsm().streams_info()}
    finally:
        await jetstream.close(client)
    connection = await asyncpg.connect(database_url(postgres_url, "postgres"))
    try:
        assert not await connection.fetch("SELECT 1 FROM pg_database WHERE datname = $1", own)
    finally:
        await connection.close()


async def test_each_test_has_a_namespace(namespace: str) -> None:
    assert TypeAdapter(Namespace).validate_python(namespace) == namespace
