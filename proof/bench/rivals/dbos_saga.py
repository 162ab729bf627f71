"""The saga in DBOS: a durable workflow of three transactions, each checkpointed in the transaction of what it does.

One database has the orders, the customers and DBOS's own tables, so that nothing need be sent anywhere.
"""

from __future__ import annotations

import os
import sys
from uuid import uuid4

import psycopg
from dbos import DBOS, DBOSConfig, SetWorkflowID, SQLAlchemyDatasource
from sqlalchemy import text

from proof.bench.rivals.driving import CUSTOMERS, Run

TABLES = """
CREATE TABLE IF NOT EXISTS orders (order_id uuid PRIMARY KEY, customer_id integer, total bigint, state text);
CREATE TABLE IF NOT EXISTS customers (customer_id integer PRIMARY KEY, available bigint);
INSERT INTO customers SELECT number, 1000000000 FROM generate_series(0, 99) AS number ON CONFLICT DO NOTHING;
"""
INSERT = text("INSERT INTO orders VALUES (:order_id, :customer_id, :total, 'PENDING')")
RESERVE = text(
    "UPDATE customers SET available = available - :total"
    " WHERE customer_id = :customer_id AND available >= :total RETURNING true"
)
APPROVE = text("UPDATE orders SET state = :state WHERE order_id = :order_id AND state = 'PENDING'")
APPROVED = "SELECT count(*) FROM orders WHERE state = 'APPROVED'"
POOL = 20


def main(postgres_url: str, database: str, orders: int) -> None:
    url = f"{postgres_url}/{database}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
        pool = {"pool_size": POOL, "max_overflow": 0}
        DBOS(
            config=DBOSConfig(name="bench", system_database_url=url, sys_db_pool_size=POOL, log_level="ERROR")
        )
        source = SQLAlchemyDatasource.create(url, engine_kwargs=pool)

        # Every statement guards itself, so the weakest isolation will do, and no transaction is run again.
        @source.transaction(isolation_level="READ COMMITTED")
        def create(order_id: str, customer_id: int, total: int) -> None:
            source.sql_session().execute(
                INSERT, {"order_id": order_id, "customer_id": customer_id, "total": total}
            )

        @source.transaction(isolation_level="READ COMMITTED")
        def reserve(customer_id: int, total: int) -> bool:
            found = source.sql_session().execute(RESERVE, {"customer_id": customer_id, "total": total})
            return found.first() is not None

        @source.transaction(isolation_level="READ COMMITTED")
        def settle(order_id: str, state: str) -> None:
            source.sql_session().execute(APPROVE, {"order_id": order_id, "state": state})

        @DBOS.workflow()
        def saga(order_id: str, customer_id: int, total: int) -> None:
            create(order_id, customer_id, total)
            settle(order_id, "APPROVED" if reserve(customer_id, total) else "REJECTED")

        def start(number: int) -> None:
            order_id = str(uuid4())
            with SetWorkflowID(order_id):
                DBOS.start_workflow(saga, order_id, number % CUSTOMERS, 1)

        def approved() -> int:
            row = connection.execute(APPROVED).fetchone()
            return int(row[0]) if row else 0

        DBOS.launch()
        try:
            Run("DBOS", start, approved).report(orders, (8,))
        finally:
            DBOS.destroy(workflow_completion_timeout_sec=30)


if __name__ == "__main__":
    main(os.environ["POSTGRES_URL"], sys.argv[1], int(sys.argv[2]))
