"""The wiring of saga_orchestrator."""

from __future__ import annotations

from saga_orchestrator.credit_saga import CREDIT_SAGAS
from saga_orchestrator.policies import policies
from saga_orchestrator.service import SagaService
from saga_orchestrator.views import SAGAS, SHOWN, KernelList, SagaRow, SagaViews
from shop.sagas.v1.saga_service_pb2_grpc import add_SagaServiceServicer_to_server
from twinlog import (
    Address,
    Projection,
    Service,
    ServiceSpec,
    Settings,
    Shutdown,
    ViewStore,
    load,
    open_service,
)
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
)


def wire(service: Service, views: ViewStore) -> None:
    """The service's reactions and its list of sagas."""
    service.subscribe(*policies(service.clock))
    shown = Projection("saga_orchestrator.sagas", [SAGAS], views, schema=service.schema, routing_key=SHOWN)
    service.subscribe(shown, linger_seconds=LIST_LINGER_SECONDS)


async def main(shutdown: Shutdown) -> None:
    """Runs the service until it is asked to stop."""
    settings = load(SagaSettings)
    async with open_service(SPEC, settings, shutdown) as service:
        views = SagaViews(service.log, PACKAGE, {"sagas": SagaRow})
        wire(service, views)
        service.saga_list = KernelList(views)
        commands, pages = Commands(service.log, service.writer), await service.page_tokens()
        edge = SagaService(commands, views, pages, service.clock)
        await service.serve((edge, add_SagaServiceServicer_to_server, "shop.sagas.v1.SagaService"))
