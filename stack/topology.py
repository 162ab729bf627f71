"""The shop's topology, as its services state it: which has which log, in which database, at which address.

Databases and streams have the names that TWINLOG_NAMESPACE gives them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import customer_svc.app
import order_svc.app
import projector.app
import saga_orchestrator.app
from twinlog import ServiceSpec
from twinlog.testing.internals import named

NAMESPACE = os.environ.get("TWINLOG_NAMESPACE", "")
"""Checked together with the services' settings."""


def _in_namespace(spec: ServiceSpec) -> ServiceSpec:
    return replace(spec, database=named(NAMESPACE, spec.database))


ORDER_SVC = _in_namespace(order_svc.app.SPEC)
CUSTOMER_SVC = _in_namespace(customer_svc.app.SPEC)
SAGA_ORCHESTRATOR = _in_namespace(saga_orchestrator.app.SPEC)
PROJECTOR = _in_namespace(projector.app.SPEC)

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

SERVICES: Sequence[ServiceSpec] = (ORDER_SVC, CUSTOMER_SVC, SAGA_ORCHESTRATOR, PROJECTOR)
"""Each is run as ``python -m name``."""
NAMES: Sequence[str] = [service.name for service in SERVICES]
DATABASES: Sequence[str] = [service.database for service in SERVICES]
OWNERS: Mapping[str, ServiceSpec] = {service.log: service for service in SERVICES}
"""By log."""
COLORS: Mapping[str, int] = dict(zip(NAMES, (36, 32, 35, 33), strict=True))
"""ANSI colors of what the services say and of their events."""
SHOP_LOGS: Mapping[str, str] = {
    service.log: service.database for service in (ORDER_SVC, CUSTOMER_SVC, SAGA_ORCHESTRATOR)
}
"""The logs of commands and sagas, with their databases; the projector's holds only its dead letters."""
CONSOLE_PAGES: Sequence[str] = ("stack.try_it",)
"""Modules with the shop's own pages of the console."""


def stream_of(log: str) -> str:
    """The name of a log's stream."""
    return named(NAMESPACE, log)


__all__ = [
    "COLORS",
    "CONSOLE_PAGES",
    "CUSTOMER_SVC",
    "DATABASES",
    "NAMES",
    "NAMESPACE",
    "ORDER_SVC",
    "OWNERS",
    "PROJECTOR",
    "ROOT",
    "SAGA_ORCHESTRATOR",
    "SERVICES",
    "SHOP_LOGS",
    "stream_of",
]
