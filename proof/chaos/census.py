"""How large everything is: memory and sockets of processes, tables, streams, connections."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import psutil

from proof.chaos.rig import Rig
from stack.topology import DATABASES, SHOP_LOGS, stream_of
from twinlog.testing.internals import connect

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
        census.processes[replica.service] = _process(replica.pid)
    census.processes["postgres"] = _process(rig.postgres.pid)
    for server in rig.nats:
        census.processes[server.folder.name] = _process(server.pid)
    for name in DATABASES:
        async with rig.connected(name) as connection:
            for table, size, _ in await connection.fetch(_TABLES):
                census.tables[f"{name.removeprefix('shop_')}.{table}"] = size / 1e6
            census.connections = await connection.fetchval(_CONNECTIONS)
    client = await connect(rig.nats_url, "census")
    try:
        for log in SHOP_LOGS:
            state = (await client.jsm().stream_info(stream_of(log))).state
            census.streams[log] = state.bytes / 1e6
            census.messages += state.messages
    finally:
        await client.close()
    return census


def _process(pid: int) -> Process:
    """A process with its children; those that end meanwhile count as nothing."""
    megabytes, sockets = 0.0, 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for each in (parent, *parent.children()):
            with suppress(psutil.Error):
                # Pss, of Linux alone, shares out what several processes map.
                memory = each.memory_full_info()
                megabytes += getattr(memory, "pss", memory.uss) / 1e6
                sockets += len(each.net_connections("all"))
    return Process(megabytes, sockets)
