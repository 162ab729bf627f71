"""The shop's topology, written once: each service, its log, its database and the setting of its address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from customer_svc.app import CustomerSettings
from order_svc.app import OrderSettings
from projector.app import QuerySettings
from saga_orchestrator.app import SagaSettings
from twinlog import Settings

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""


@dataclass(frozen=True)
class ShopService:
    """One service of the shop."""

    name: str
    """Also its module: ``python -m name``."""
    log: str
    """The log that it owns; its twin has the same name."""
    database: str
    settings: type[Settings]
    color: int
    """ANSI color of what it says and of its events."""

    @property
    def setting(self) -> str:
        """The environment variable that holds its address, such as ORDERS_ADDRESS."""
        return self._address_field.upper()

    @property
    def default_address(self) -> str:
        """host:port where it serves unless the setting says otherwise."""
        return str(self.settings.model_fields[self._address_field].default)

    @property
    def _address_field(self) -> str:
        own = self.settings.model_fields.keys() - Settings.model_fields.keys()
        (name,) = (name for name in own if name.endswith("_address"))
        return name


ORDER_SVC = ShopService("order_svc", "orders", "shop_orders", OrderSettings, 36)
CUSTOMER_SVC = ShopService("customer_svc", "customers", "shop_customers", CustomerSettings, 32)
SAGA_ORCHESTRATOR = ShopService("saga_orchestrator", "sagas", "shop_sagas", SagaSettings, 35)
PROJECTOR = ShopService("projector", "projector", "shop_views", QuerySettings, 33)

SERVICES: Sequence[ShopService] = (ORDER_SVC, CUSTOMER_SVC, SAGA_ORCHESTRATOR, PROJECTOR)
NAMES: Sequence[str] = [service.name for service in SERVICES]
DATABASES: Sequence[str] = [service.database for service in SERVICES]
OWNERS: Mapping[str, ShopService] = {service.log: service for service in SERVICES}
"""By log."""
SHOP_LOGS: Mapping[str, str] = {
    service.log: service.database for service in (ORDER_SVC, CUSTOMER_SVC, SAGA_ORCHESTRATOR)
}
"""The logs of commands and sagas, with their databases; the projector's holds only its dead letters."""
