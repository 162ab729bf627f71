"""What there is to audit in the shop: its logs, their aggregates, consumers and views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
from proof.auditor.dead_letters import DeadLettersByConsumer
from proof.auditor.followers import Follower
from proof.auditor.views import TimelineAudit, ViewAudit
from saga_orchestrator.credit_saga import CREDIT_SAGAS
from saga_orchestrator.views import SAGAS, SHOWN, SagaRow
from stack.topology import CUSTOMER_SVC, ORDER_SVC, PROJECTOR, SAGA_ORCHESTRATOR, SHOP_LOGS
from twinlog import Clock, Schema, ServiceSpec
from twinlog.testing.internals import DEAD_LETTERS, AnyAggregate, AnyView

SCHEMA = Schema()
"""Decodes the events of every log; knows no upcasters, as the services of the shop."""


class LogOf(NamedTuple):
    """A log, its owner and the aggregates in it."""

    log: str
    owner: str
    database: str
    aggregates: Sequence[AnyAggregate]


def _log_of(service: ServiceSpec, *aggregates: AnyAggregate) -> LogOf:
    return LogOf(service.log, service.name, service.database, [*aggregates, DEAD_LETTERS])


LOGS: Sequence[LogOf] = [
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
HOMES: Mapping[str, LogOf] = {of.log: of for of in LOGS}
"""By log."""


def followers(clock: Clock, dead_letters: DeadLettersByConsumer) -> list[Follower]:
    """One for every policy table."""
    tables = {
        ORDER_SVC.database: [order_svc.policies.CHOREOGRAPHY, order_svc.policies.ORCHESTRATION],
        CUSTOMER_SVC.database: customer_svc.policies.policies(clock),
        SAGA_ORCHESTRATOR.database: saga_orchestrator.policies.policies(clock),
    }
    return [
        Follower(policies, database, dead_letters[policies.consumer])
        for database, of in tables.items()
        for policies in of
    ]


def views(dead_letters: DeadLettersByConsumer) -> list[ViewAudit]:
    """Every view that is folded row by row."""
    return [
        _view(ORDERS, OrderRow, ORDER_SVC.log, dead_letters),
        _view(CUSTOMERS, CustomerRow, CUSTOMER_SVC.log, dead_letters),
        ViewAudit(
            SAGAS,
            SagaRow,
            log=SAGA_ORCHESTRATOR.log,
            dead_letters=dead_letters["saga_orchestrator.sagas"],
            database=SAGA_ORCHESTRATOR.database,
            package="saga_orchestrator.sql",
            routing_key=SHOWN,
            remedy=_rebuild(SAGA_ORCHESTRATOR.database, "saga_orchestrator.sagas", "TRUNCATE sagas"),
        ),
    ]


def timelines(dead_letters: DeadLettersByConsumer) -> Mapping[str, TimelineAudit]:
    """The timeline of each log that has one."""
    return {
        log: TimelineAudit(
            log=log,
            dead_letters=dead_letters[f"projector.{log}"],
            database=VIEWS_DATABASE,
            remedy=_rebuild_of_projector(log),
        )
        for log in SHOWN_LOGS
    }


def _view(view: AnyView, row_type: type, log: str, dead_letters: DeadLettersByConsumer) -> ViewAudit:
    return ViewAudit(
        view,
        row_type,
        log=log,
        dead_letters=dead_letters[f"projector.{log}"],
        database=VIEWS_DATABASE,
        package="projector.sql",
        remedy=_rebuild_of_projector(log),
    )


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
