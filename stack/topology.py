"""The shop's topology, as its services state it: which has which log, in which database, at which address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from customer_svc.app import SPEC as CUSTOMER_SVC
from order_svc.app import SPEC as ORDER_SVC
from projector.app import SPEC as PROJECTOR
from saga_orchestrator.app import SPEC as SAGA_ORCHESTRATOR
from twinlog import ServiceSpec

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

__all__ = [
    "COLORS",
    "CUSTOMER_SVC",
    "DATABASES",
    "NAMES",
    "ORDER_SVC",
    "OWNERS",
    "PROJECTOR",
    "ROOT",
    "SAGA_ORCHESTRATOR",
    "SERVICES",
    "SHOP_LOGS",
]
