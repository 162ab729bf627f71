"""The wiring of saga_orchestrator."""

from __future__ import annotations

from saga_orchestrator.credit_saga import CREDIT_SAGAS
from saga_orchestrator.policies import policies
from saga_orchestrator.service import SagaService
from saga_orchestrator.views import SAGAS, SHOWN, KernelList, SagaRow, SagaViews
from twinlog import Address, Projection, Service, ServiceSpec, Settings
from twinlog.rpc import Commands

PACKAGE = "saga_orchestrator.sql"
LIST_LINGER_SECONDS = 0.25
"""The pause between batches of the list of sagas: it is for operators, and no saga waits for it."""


class SagaSettings(Settings):
    """The settings of saga_orchestrator."""

    sagas_address: Address = "127.0.0.1:50053"
    """Where saga_orchestrator serves."""


SPEC = ServiceSpec(
    name="saga_orchestrator",
    log="sagas",
    database="shop_sagas",
    domain="shop",
    settings=SagaSettings,
    address="sagas_address",
    aggregates=(CREDIT_SAGAS,),
    migrations=(PACKAGE,),
    views=lambda log: SagaViews(log, PACKAGE, {"sagas": SagaRow}),
)


def wire(service: Service, views: SagaViews) -> SagaService:
    """The service's reactions, its list of sagas and its edge."""
    service.subscribe(*policies(service.clock))
    shown = Projection("saga_orchestrator.sagas", [SAGAS], views, schema=service.schema, routing_key=SHOWN)
    service.subscribe(shown, linger_seconds=LIST_LINGER_SECONDS)
    service.saga_list = sagas = KernelList(views)
    return SagaService(Commands(service.log, service.writer), views, sagas, service.pages, service.clock)
