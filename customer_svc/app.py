"""The wiring of customer_svc."""

from __future__ import annotations

from customer_svc.domain import CUSTOMER
from customer_svc.policies import policies
from customer_svc.service import CustomerService
from twinlog import Address, Service, ServiceSpec, Settings
from twinlog.rpc import Commands


class CustomerSettings(Settings):
    """The settings of customer_svc."""

    customers_address: Address = "127.0.0.1:50052"
    """Where customer_svc serves."""


SPEC = ServiceSpec(
    name="customer_svc",
    log="customers",
    database="shop_customers",
    domain="shop",
    settings=CustomerSettings,
    address="customers_address",
    aggregates=(CUSTOMER,),
)


def wire(service: Service, _views: object = None) -> CustomerService:
    """The service's reactions and its edge."""
    service.subscribe(*policies(service.clock))
    return CustomerService(Commands(service.log, service.writer), ids=service.ids, personal=service.personal)
