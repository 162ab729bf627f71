"""The wiring of payments_svc, which nobody calls: it follows logs."""

from twinlog import Address, Service, ServiceSpec, Settings

from payments_svc.domain import PAYMENT
from payments_svc.policies import ROOMS, TRIPS
from payments_svc.provider import FakeProvider, payments


class PaymentSettings(Settings):
    payments_address: Address = "127.0.0.1:50062"
    """Where payments_svc serves."""


SPEC = ServiceSpec(
    name="payments_svc",
    log="payments",
    database="hotel_payments",
    domain="hotel",
    settings=PaymentSettings,
    address="payments_address",
    aggregates=(PAYMENT,),
)


def wire(service: Service, _views: object = None, provider: FakeProvider | None = None) -> None:
    service.subscribe(TRIPS, ROOMS, payments(provider or FakeProvider()))
