"""Servers for tests: embedded ones, and what a single test has of its own on them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

import asyncpg
import psutil
from nats.js.errors import NotFoundError

from twinlog.dev import EmbeddedNats, EmbeddedPostgres
from twinlog.jetstream.client import NatsClient
from twinlog.jetstream.connection import close, connect
from twinlog.postgres.urls import database_url

_MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""
_ROOM_BYTES = 4 * 2**30
_PREFIX = "twinlog-test-"
"""Before the process that made the folder."""


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with a short path, which a server that runs as another user may enter.

    It lies in memory where there is plenty: a database is some 300 files, which a disk takes ten times as long to
    create and to delete. The environment's TMPDIR says where else. What killed runs left is deleted.
    """
    where = _in_memory() or Path(tempfile.gettempdir())
    _delete_leftovers(where)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=where))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _in_memory() -> Path | None:
    """Where files lie in memory; None where that is tight, may not hold programs, or TMPDIR names another place."""
    if os.environ.get("TMPDIR") or not _MEMORY.is_dir():
        return None
    room = os.statvfs(_MEMORY)
    roomy = min(room.f_bavail * room.f_frsize, psutil.virtual_memory().available) >= _ROOM_BYTES
    return _MEMORY if roomy and not room.f_flag & os.ST_NOEXEC and os.access(_MEMORY, os.W_OK) else None


@cache
def _delete_leftovers(where: Path) -> None:
    """Deletes the folders of processes that have ended."""
    for left in where.glob(f"{_PREFIX}*-*"):
        owner = left.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)


@asynccontextmanager
async def postgres_server(kind: type[EmbeddedPostgres] = EmbeddedPostgres) -> AsyncIterator[EmbeddedPostgres]:
    """A Postgres that the test may stop, kill and start again; it does without fsync, because no machine dies here."""
    with folder() as path:
        async with kind(path / "pg", fsync=False) as server:
            yield server


@asynccontextmanager
async def nats_server() -> AsyncIterator[EmbeddedNats]:
    """A NATS that the test may stop, kill and start again."""
    with folder() as path:
        async with EmbeddedNats(path / "nats") as server:
            yield server


def unique() -> str:
    """A name for a log, and so for its database and its stream, that no other test uses."""
    return f"t_{uuid4().hex[:12]}"


async def execute(server_url: str, statement: str, database: str = "postgres") -> None:
    """Runs one statement on its own connection."""
    connection = await asyncpg.connect(database_url(server_url, database))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def database(server_url: str) -> AsyncIterator[str]:
    """The name of a database that is there for the block only."""
    name = unique()
    await execute(server_url, f'CREATE DATABASE "{name}"')
    try:
        yield name
    finally:
        await _drop(server_url, name)


@asynccontextmanager
async def stream(client: NatsClient) -> AsyncIterator[str]:
    """The name of a stream that is not there yet; what was made of it is deleted after the block."""
    name = unique()
    try:
        yield name
    finally:
        with suppress(NotFoundError):
            await client.jsm().delete_stream(name)


@asynccontextmanager
async def namespace(postgres_url: str, nats_url: str) -> AsyncIterator[str]:
    """A TWINLOG_NAMESPACE of the block's own: databases and streams whose names begin so are deleted after it."""
    name = unique().replace("_", "")  # which stands between it and the name of a database
    try:
        yield name
    finally:
        await _drop_databases(postgres_url, f"{name}_")
        await _delete_streams(nats_url, f"{name}_")


async def _drop_databases(server_url: str, prefix: str) -> None:
    connection = await asyncpg.connect(database_url(server_url, "postgres"))
    try:
        for row in await connection.fetch(
            "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix
        ):
            await connection.execute(_DROP.format(row["datname"]))
    finally:
        await connection.close()


_DROP = 'DROP DATABASE IF EXISTS "{}" WITH (FORCE)'


async def _drop(server_url: str, name: str) -> None:
    await execute(server_url, _DROP.format(name))


async def _delete_streams(nats_url: str, prefix: str) -> None:
    client = await connect(nats_url, "tests")
    try:
        manager = client.jsm()
        for info in await manager.streams_info():
            if str(info.config.name).startswith(prefix):
                await manager.delete_stream(str(info.config.name))
    finally:
        await close(client)
