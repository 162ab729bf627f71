"""What there is to audit in the shop: its logs, their owners, consumers and views."""

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
from proof.auditor.followers import Follower
from proof.auditor.letters import AllDeadLetters
from proof.auditor.views import TimelineAudit, ViewAudit
from saga_orchestrator.credit_saga import CREDIT_SAGAS
from saga_orchestrator.views import SAGAS, SHOWN, SagaRow
from twinlog import Clock
from twinlog.testing.internals import DEAD_LETTERS, AnyAggregate, AnyView

VIEWS_DATABASE = "shop_views"


class LogOf(NamedTuple):
    """A log and whose it is."""

    log: str
    owner: str
    database: str
    aggregates: Sequence[AnyAggregate]


LOGS: Sequence[LogOf] = [
    LogOf("orders", "order_svc", "shop_orders", [ORDER, SAGA_MODE, DEAD_LETTERS]),
    LogOf("customers", "customer_svc", "shop_customers", [CUSTOMER, DEAD_LETTERS]),
    LogOf("sagas", "saga_orchestrator", "shop_sagas", [CREDIT_SAGAS, DEAD_LETTERS]),
    LogOf("projector", "projector", VIEWS_DATABASE, [DEAD_LETTERS]),
]
SHOWN_LOGS = [of.log for of in LOGS if of.database != VIEWS_DATABASE]
"""The logs whose events the views show."""
DATABASES = [VIEWS_DATABASE, *(of.database for of in LOGS if of.database != VIEWS_DATABASE)]
"""In the order in which they are to be read: then no view can be ahead of its log."""
HOMES: Mapping[str, LogOf] = {of.log: of for of in LOGS}


def followers(clock: Clock, dead_letters: AllDeadLetters) -> list[Follower]:
    """Every policy table."""
    tables = {
        "shop_orders": [order_svc.policies.CHOREOGRAPHY, order_svc.policies.ORCHESTRATION],
        "shop_customers": [customer_svc.policies.CHOREOGRAPHY, customer_svc.policies.ORCHESTRATION],
        "shop_sagas": saga_orchestrator.policies.policies(clock),
    }
    return [
        Follower(policies, database, dead_letters[policies.consumer])
        for database, of in tables.items()
        for policies in of
    ]


def views(dead_letters: AllDeadLetters) -> list[ViewAudit]:
    """Every view that is folded row by row."""
    return [
        _view(ORDERS, OrderRow, "orders", dead_letters),
        _view(CUSTOMERS, CustomerRow, "customers", dead_letters),
        ViewAudit(
            SAGAS,
            SagaRow,
            log="sagas",
            dead_letters=dead_letters["saga_orchestrator.sagas"],
            database="shop_sagas",
            package="saga_orchestrator.sql",
            routing_key=SHOWN,
            remedy=_rebuild("shop_sagas", "saga_orchestrator.sagas", "TRUNCATE sagas"),
        ),
    ]


def timelines(dead_letters: AllDeadLetters) -> Mapping[str, TimelineAudit]:
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


def _view(view: AnyView, row_type: type, log: str, dead_letters: AllDeadLetters) -> ViewAudit:
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
    if log != "sagas":
        wipe += f"; TRUNCATE {log}"
    return _rebuild(VIEWS_DATABASE, f"projector.{log}", wipe)


def _rebuild(database: str, consumer: str, wipe: str) -> str:
    return (
        f"psql {database} -1 -c \"{wipe}; DELETE FROM checkpoints WHERE consumer = '{consumer}'\""
        f"    # with {consumer.partition('.')[0]} stopped; it makes the view again"
    )
