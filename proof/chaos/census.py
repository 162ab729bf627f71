"""How large everything is: memory and sockets of processes, tables, streams, connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import asyncpg

from proof.chaos.ledger import LOGS
from proof.chaos.rig import Rig
from twinlog.testing.internals import connect, database_url

DATABASES = (*LOGS.values(), "shop_views")

_TABLES = """
SELECT c.relname, pg_total_relation_size(c.oid), c.reltuples::bigint
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND n.nspname = 'public'
"""
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'shop%' AND pid <> pg_backend_pid()"


class Process(NamedTuple):
    """One process, or a server with its children."""

    megabytes: float
    """Resident memory; what is shared between a server's children counts once."""
    sockets: int


@dataclass
class Census:
    """One look at everything."""

    processes: dict[str, Process] = field(default_factory=dict)
    tables: dict[str, float] = field(default_factory=dict)
    """Megabytes with indexes, by database and table."""
    streams: dict[str, float] = field(default_factory=dict)
    """Megabytes, by stream."""
    messages: int = 0
    connections: int = 0
    """To Postgres, by the services."""


async def take(rig: Rig) -> Census:
    """Looks now."""
    census = Census()
    for replica in rig.all:
        census.processes[replica.service] = _process([replica.pid])
    census.processes["postgres"] = _process([rig.postgres.pid, *_children(rig.postgres.pid)])
    for server in rig.nats:
        census.processes[server.folder.name] = _process([server.pid])
    for name in DATABASES:
        connection = await asyncpg.connect(database_url(rig.postgres.url, name), timeout=10)
        try:
            for table, size, _ in await connection.fetch(_TABLES):
                census.tables[f"{name.removeprefix('shop_')}.{table}"] = size / 1e6
            census.connections = await connection.fetchval(_CONNECTIONS)
        finally:
            await connection.close()
    client = await connect(rig.nats_url, "census")
    try:
        for log in LOGS:
            state = (await client.jsm().stream_info(log)).state
            census.streams[log] = state.bytes / 1e6
            census.messages += state.messages
    finally:
        await client.close()
    return census


def _process(pids: Sequence[int]) -> Process:
    return Process(sum(map(_megabytes, pids)), sum(map(_sockets, pids)))


def _megabytes(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3


def _sockets(pid: int) -> int:
    try:
        return sum(entry.readlink().name.startswith("socket:") for entry in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _children(pid: int) -> Iterator[int]:
    try:
        yield from map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    except OSError:
        return
