-- name: orders_rows
-- The rows to fold on.
SELECT order_id, customer_id, total_nanos, currency, state, reason, saga_mode, created_position, created_at, updated_at,
       version
  FROM orders WHERE order_id = ANY ($1::text[]);

-- name: orders_upsert
-- Stores folded rows. Only what changes after creation is updated.
INSERT INTO orders SELECT * FROM unnest($1::orders[])
ON CONFLICT (order_id) DO UPDATE
   SET state = excluded.state, reason = excluded.reason, updated_at = excluded.updated_at, version = excluded.version;

-- name: customers_rows
-- The rows to fold on.
SELECT customer_id, name, currency, limit_nanos, reserved_nanos, created_position, created_at, updated_at
  FROM customers WHERE customer_id = ANY ($1::text[]);

-- name: customers_upsert
-- Stores folded rows.
INSERT INTO customers SELECT * FROM unnest($1::customers[])
ON CONFLICT (customer_id) DO UPDATE
   SET name = excluded.name, currency = excluded.currency, limit_nanos = excluded.limit_nanos,
       reserved_nanos = excluded.reserved_nanos, created_position = excluded.created_position,
       created_at = excluded.created_at, updated_at = excluded.updated_at;

-- name: timeline_upsert
-- Stores events.
INSERT INTO timeline SELECT * FROM unnest($1::timeline[])
ON CONFLICT DO NOTHING;

-- name: list_orders
-- A page of orders, newest first; empty customer and state 0: all.
SELECT order_id, customer_id, total_nanos, currency, state, reason, saga_mode, created_position, created_at, updated_at,
       version
  FROM orders
 WHERE ($1 = '' OR customer_id = $1) AND ($2::smallint = 0 OR state = $2) AND created_position < $3
 ORDER BY created_position DESC LIMIT $4;

-- name: list_customers
-- A page of customers, newest first; leaves out rows of customers who do not exist.
SELECT customer_id, name, currency, limit_nanos, reserved_nanos, created_position, created_at, updated_at
  FROM customers WHERE created_position > 0 AND created_position < $1
 ORDER BY created_position DESC LIMIT $2;

-- name: timeline_of_order
-- Every event that names the order, and every event of the saga instance that serves it.
SELECT log, position, order_id, stream_id, type, payload, recorded_at, causation_id, correlation_id, actor
  FROM timeline WHERE order_id = $1 AND order_id <> ''
UNION
SELECT log, position, order_id, stream_id, type, payload, recorded_at, causation_id, correlation_id, actor
  FROM timeline
 WHERE log = 'sagas'
   AND stream_id = ANY (ARRAY (SELECT stream_id FROM timeline WHERE order_id = $1 AND order_id <> ''));
