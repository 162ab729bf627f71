"""Embedded Postgres and NATS, and a supervisor of the processes that use them, for running on one machine."""

from twinlog.dev.nats import EmbeddedNats
from twinlog.dev.postgres import EmbeddedPostgres
from twinlog.dev.process import (
    Misconfigured,
    Refused,
    StartFailed,
    free_port,
    kill_all,
    port_is_free,
    spawn,
    stop,
)
from twinlog.dev.supervisor import Program, Supervisor, end_leftover_service, until_serving

__all__ = [
    "EmbeddedNats",
    "EmbeddedPostgres",
    "Misconfigured",
    "Program",
    "Refused",
    "StartFailed",
    "Supervisor",
    "end_leftover_service",
    "free_port",
    "kill_all",
    "port_is_free",
    "spawn",
    "stop",
    "until_serving",
]
