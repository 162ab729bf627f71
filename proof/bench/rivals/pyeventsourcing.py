"""The saga in pyeventsourcing: its process applications, its system runner, its Postgres recorders.

Orders and customers follow each other, a view follows the orders; each event that one handles is tracked in the
transaction of what it does, as in the shop. Aggregates are cached.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from eventsourcing.application import ProcessingEvent
from eventsourcing.domain import Aggregate, event
from eventsourcing.postgres import PostgresProcessRecorder
from eventsourcing.system import MultiThreadedRunner, ProcessApplication, System
from eventsourcing.utils import get_topic

from proof.bench.rivals.driving import CUSTOMERS, Run

VIEW = "CREATE TABLE IF NOT EXISTS orders_view (order_id uuid PRIMARY KEY, state text)"
UPSERT = """INSERT INTO orders_view VALUES (%s, %s)
    ON CONFLICT (order_id) DO UPDATE SET state = excluded.state"""
APPROVED = "SELECT count(*) FROM orders_view WHERE state = 'APPROVED'"
SETTINGS = {
    "PERSISTENCE_MODULE": "eventsourcing.postgres",
    "POSTGRES_POOL_SIZE": "20",
    "POSTGRES_MAX_OVERFLOW": "20",
    "AGGREGATE_CACHE_MAXSIZE": "50000",
}


class Order(Aggregate):
    @event("Created")
    def __init__(self, customer_id: UUID, total: int) -> None:
        self.customer_id, self.total, self.state = customer_id, total, "PENDING"

    @event("Approved")
    def approve(self) -> None:
        self.state = "APPROVED"


class Customer(Aggregate):
    @event("Created")
    def __init__(self, limit: int) -> None:
        self.available = limit

    def reserve(self, order_id: UUID, total: int) -> None:
        if self.available >= total:
            self._reserve(order_id, total)

    @event("Reserved")
    def _reserve(self, order_id: UUID, total: int) -> None:
        self.available -= total


class Orders(ProcessApplication[UUID]):
    def create(self, customer_id: UUID, total: int) -> None:
        self.save(Order(customer_id, total))

    def policy(self, domain_event: Any, processing_event: ProcessingEvent) -> None:
        if isinstance(domain_event, Customer.Reserved):
            order = self.repository.get(domain_event.order_id)
            order.approve()
            processing_event.collect_events(order)


class Customers(ProcessApplication[UUID]):
    def create(self, limit: int) -> UUID:
        customer = Customer(limit)
        self.save(customer)
        id: UUID = customer.id
        return id

    def policy(self, domain_event: Any, processing_event: ProcessingEvent) -> None:
        if isinstance(domain_event, Order.Created):
            customer = self.repository.get(domain_event.customer_id)
            customer.reserve(domain_event.originator_id, domain_event.total)
            processing_event.collect_events(customer)


class ViewRecorder(PostgresProcessRecorder):
    """Writes the view's rows in the transaction that tracks the event."""

    def _insert_events(self, curs: Any, stored_events: Sequence[Any], **kwargs: Any) -> None:
        row = kwargs.pop("row", None)
        super()._insert_events(curs, stored_events, **kwargs)
        if row:
            curs.execute(UPSERT, row, prepare=True)


class View(ProcessApplication[UUID]):
    def policy(self, domain_event: Any, processing_event: ProcessingEvent) -> None:
        state = "APPROVED" if isinstance(domain_event, Order.Approved) else "PENDING"
        processing_event.collect_events(row=(domain_event.originator_id, state))


Orders.topics = (get_topic(Customer.Reserved),)
Customers.topics = (get_topic(Order.Created),)
for application in (Orders, Customers, View):
    application.log_section_size = application.pull_section_size = 500


def main(postgres_url: str, database: str, orders: int) -> None:
    url = urlsplit(postgres_url)
    os.environ.update(
        SETTINGS,
        POSTGRES_HOST=str(url.hostname),
        POSTGRES_PORT=str(url.port),
        POSTGRES_USER=str(url.username),
        POSTGRES_PASSWORD=url.password or "",
        POSTGRES_DBNAME=database,
        VIEW_PROCESS_RECORDER_TOPIC=get_topic(ViewRecorder),
    )
    runner = MultiThreadedRunner(System(pipes=[[Orders, Customers, Orders], [Orders, View]]))
    with psycopg.connect(f"{postgres_url}/{database}", autocommit=True) as connection, runner:
        connection.execute(VIEW)
        application = runner.get(Orders)
        customers = [runner.get(Customers).create(10**9) for _ in range(CUSTOMERS)]

        def create(number: int) -> None:
            application.create(customers[number % CUSTOMERS], 1)

        def approved() -> int:
            if runner.has_errored.is_set():
                runner.reraise_thread_errors()
            return int(connection.execute(APPROVED).fetchone()[0])

        Run("pyeventsourcing", create, approved).report(orders, (2, 8))


if __name__ == "__main__":
    main(os.environ["POSTGRES_URL"], sys.argv[1], int(sys.argv[2]))
