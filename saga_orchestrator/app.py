"""The wiring of saga_orchestrator."""

from __future__ import annotations

from saga_orchestrator.credit_saga import CREDIT_SAGAS
from saga_orchestrator.policies import policies
from saga_orchestrator.service import SagaService
from saga_orchestrator.views import SAGAS, SHOWN, SagaRow, SagaViews
from shop.sagas.v1.saga_service_pb2_grpc import add_SagaServiceServicer_to_server
from twinlog import Address, Projection, Schema, Service, Settings, Shutdown, ViewStore, load, open_service
from twinlog.rpc import Commands, PageTokens

PACKAGE = "saga_orchestrator.sql"
LIST_LINGERS_SECONDS = 0.25
"""The list of sagas is for operators, and no saga waits for it."""
AGGREGATES = (CREDIT_SAGAS,)


class SagaSettings(Settings):
    """What saga_orchestrator has besides."""

    sagas_address: Address = "127.0.0.1:50053"
    """Where saga_orchestrator serves."""


def wire(service: Service, views: ViewStore) -> None:
    """The service's reactions and its list of sagas."""
    service.subscribe(*policies(service.clock))
    shown = Projection("saga_orchestrator.sagas", [SAGAS], views, schema=service.schema, routing_key=SHOWN)
    service.subscribe(shown, linger_seconds=LIST_LINGERS_SECONDS)


async def main(shutdown: Shutdown) -> None:
    """Runs the service until it is asked to stop."""
    settings = load(SagaSettings)
    async with open_service(
        settings,
        shutdown,
        PACKAGE,
        name="saga_orchestrator",
        log="sagas",
        database="shop_sagas",
        schema=Schema(),
        aggregates=AGGREGATES,
    ) as service:
        views = SagaViews(service.log, PACKAGE, {"sagas": SagaRow})
        wire(service, views)
        pages = PageTokens(await views.page_key())
        commands = Commands(service.log, service.writer)
        edge = SagaService(commands, views, pages, service.clock, service.schema)
        await service.serve(
            (edge, add_SagaServiceServicer_to_server, "shop.sagas.v1.SagaService"),
            address=settings.sagas_address,
            setting="SAGAS_ADDRESS",
            domain="shop",
        )
