"""What there is to audit in the shop: its logs, their aggregates, consumers and views."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import customer_svc.policies
import order_svc.policies
import saga_orchestrator.policies

# Imported for the message types that they register: every event of every log is decoded.
import shop.customers.v1.events_pb2
import shop.orders.v1.events_pb2
import shop.sagas.v1.commands_pb2  # noqa: F401
import twinlog.v1.dead_letters_pb2
import twinlog.v1.saga_pb2  # noqa: F401
from customer_svc.domain import CUSTOMER
from order_svc.domain import ORDER, SAGA_MODE
from projector.views.customers import CUSTOMERS, CustomerRow
from projector.views.orders import ORDERS, OrderRow
from projector.views.timeline import TIMELINE
from proof.auditor.timeline import TimelineAudit
from saga_orchestrator.credit_saga import CREDIT_SAGAS
from saga_orchestrator.views import SAGAS, SHOWN, SagaRow
from stack.topology import CUSTOMER_SVC, NAMESPACE, ORDER_SVC, PROJECTOR, SAGA_ORCHESTRATOR, SHOP_LOGS
from twinlog import Clock, Schema, ServiceSpec
from twinlog.audit import (
    AuditedLog,
    DeadLettersByConsumer,
    Follower,
    RowsAudit,
    System,
    TableRows,
    ViewAudit,
)
from twinlog.testing.internals import (
    DEAD_LETTERS,
    AnyAggregate,
    AnyView,
    Build,
    consumer_of,
    load_queries,
)

SCHEMA = Schema()
"""Decodes the events of every log; knows no upcasters, as the services of the shop."""


def _log_of(service: ServiceSpec, *aggregates: AnyAggregate) -> AuditedLog:
    return AuditedLog(service.log, service.name, service.database, [*aggregates, DEAD_LETTERS], SCHEMA)


LOGS: Sequence[AuditedLog] = [
    _log_of(ORDER_SVC, ORDER, SAGA_MODE),
    _log_of(CUSTOMER_SVC, CUSTOMER),
    _log_of(SAGA_ORCHESTRATOR, CREDIT_SAGAS),
    _log_of(PROJECTOR),
]
VIEWS_DATABASE = PROJECTOR.database
SHOWN_LOGS = list(SHOP_LOGS)
"""The logs whose events the views show."""
DATABASES = [VIEWS_DATABASE, *SHOP_LOGS.values()]
"""In the order in which they have to be read, so that no view is ahead of its log."""


def system(clock: Clock, builds: Sequence[Build] = ()) -> System:
    """The shop, as its services are wired; ``builds``: those of the projector's views, where they were built anew."""
    live = {build.view: build for build in builds if build.live}
    gone = {build.view for build in builds if build.home and build.dropped}
    return System(
        LOGS,
        DATABASES,
        lambda dead: _followers(clock, dead),
        lambda dead: _views(dead, live, gone),
        NAMESPACE,
        notes=["the timeline is not compared: its home was dropped"] if TIMELINE.name in gone else (),
    )


def _followers(clock: Clock, dead_letters: DeadLettersByConsumer) -> list[Follower]:
    """One for every policy table."""
    tables = {
        ORDER_SVC.database: [order_svc.policies.CHOREOGRAPHY, order_svc.policies.ORCHESTRATION],
        CUSTOMER_SVC.database: customer_svc.policies.policies(clock),
        SAGA_ORCHESTRATOR.database: saga_orchestrator.policies.policies(clock),
    }
    return [
        Follower(policies.actor, database, dead_letters[policies.consumer], policies.dispatches)
        for database, of in tables.items()
        for policies in of
    ]


def _views(
    dead_letters: DeadLettersByConsumer, live: Mapping[str, Build], gone: Collection[str]
) -> list[RowsAudit]:
    """Every view that is folded row by row, as it is read, then the timeline of each log that has one."""
    return [
        _view(ORDERS, OrderRow, ORDER_SVC.log, dead_letters, live.get(ORDERS.name)),
        _view(CUSTOMERS, CustomerRow, CUSTOMER_SVC.log, dead_letters, live.get(CUSTOMERS.name)),
        ViewAudit(
            SAGAS,
            _rows("saga_orchestrator.sql", SAGAS, SagaRow),
            log=SAGA_ORCHESTRATOR.log,
            dead_letters=dead_letters["saga_orchestrator.sagas"],
            database=SAGA_ORCHESTRATOR.database,
            routing_key=SHOWN,
            remedy=_rebuild(SAGA_ORCHESTRATOR.database, "saga_orchestrator.sagas", "TRUNCATE sagas"),
        ),
        *(
            TimelineAudit(
                log=log,
                dead_letters=dead_letters[f"projector.{log}"],
                database=VIEWS_DATABASE,
                remedy=_rebuild_of_projector(log),
            )
            for log in (SHOWN_LOGS if TIMELINE.name not in gone else ())
        ),
    ]


def _view(
    view: AnyView, row_type: type, log: str, dead_letters: DeadLettersByConsumer, live: Build | None
) -> ViewAudit:
    home = f"projector.{log}"
    return ViewAudit(
        view,
        _rows("projector.sql", view, row_type, live.place if live else ""),
        log=log,
        dead_letters=dead_letters[consumer_of(live, home, log) if live else home],
        database=VIEWS_DATABASE,
        remedy=_rebuild_of_projector(log),
    )


def _rows(package: str, view: AnyView, row_type: type, place: str = "") -> TableRows:
    return TableRows(view, load_queries(package)[f"{view.name}_rows"], row_type, place)


def _rebuild_of_projector(log: str) -> str:
    wipe = f"DELETE FROM timeline WHERE log = '{log}'"
    if log != SAGA_ORCHESTRATOR.log:
        wipe += f"; TRUNCATE {log}"
    return _rebuild(VIEWS_DATABASE, f"projector.{log}", wipe)


def _rebuild(database: str, consumer: str, wipe: str) -> str:
    return (
        f"psql {database} -1 -c \"{wipe}; DELETE FROM checkpoints WHERE consumer = '{consumer}'\""
        f"    # with {consumer.partition('.')[0]} stopped; it makes the view again"
    )
