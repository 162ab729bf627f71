"""Embedded Postgres and NATS, and a supervisor of the processes that use them, for running on one machine."""

from twinlog.dev.nats import EmbeddedNats
from twinlog.dev.postgres import EmbeddedPostgres
from twinlog.dev.preflight import check_nats, check_postgres, check_settings
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
from twinlog.dev.system import FIRST_METRICS, Console, System, end_leftovers, locked, running
from twinlog.dev.told import Told, until_told

__all__ = [
    "FIRST_METRICS",
    "Console",
    "EmbeddedNats",
    "EmbeddedPostgres",
    "Misconfigured",
    "Program",
    "Refused",
    "StartFailed",
    "Supervisor",
    "System",
    "Told",
    "check_nats",
    "check_postgres",
    "check_settings",
    "end_leftover_service",
    "end_leftovers",
    "free_port",
    "kill_all",
    "locked",
    "port_is_free",
    "running",
    "spawn",
    "stop",
    "until_serving",
    "until_told",
]
