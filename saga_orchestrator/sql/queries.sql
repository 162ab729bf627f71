-- name: sagas_rows
-- The rows to fold on.
SELECT saga_id, order_id, customer_id, definition_version, status, reason, started_position, started_at, updated_at
  FROM sagas WHERE saga_id = ANY ($1::text[]);

-- name: sagas_upsert
-- Stores folded rows.
INSERT INTO sagas SELECT * FROM unnest($1::sagas[])
ON CONFLICT (saga_id) DO UPDATE
   SET status = excluded.status, reason = excluded.reason, updated_at = excluded.updated_at;

-- name: list_sagas
-- A page of sagas, newest first; status 0: all.
SELECT saga_id, order_id, customer_id, definition_version, status, reason, started_position, started_at, updated_at
  FROM sagas WHERE ($1::smallint = 0 OR status = $1) AND started_position < $2
 ORDER BY started_position DESC LIMIT $3;

-- name: page_of_sagas
-- A page of sagas with one of some statuses, newest first.
SELECT saga_id, order_id, customer_id, definition_version, status, reason, started_position, started_at, updated_at
  FROM sagas WHERE status = ANY ($1::smallint[]) AND started_at <= $2 AND ($3 = '' OR customer_id = $3)
   AND started_position < $4
 ORDER BY started_position DESC LIMIT $5;

-- name: oldest_sagas
-- A page of sagas with one of some statuses, oldest first.
SELECT saga_id, order_id, customer_id, definition_version, status, reason, started_position, started_at, updated_at
  FROM sagas WHERE status = ANY ($1::smallint[]) AND started_at <= $2 AND ($3 = '' OR customer_id = $3)
   AND started_position > $4
 ORDER BY started_position LIMIT $5;

-- name: chosen_sagas
-- Sagas with one of some statuses, oldest first, and how many there are.
SELECT saga_id, count(*) OVER () FROM sagas
 WHERE status = ANY ($1::smallint[]) AND started_at <= $2 AND ($3 = '' OR customer_id = $3)
 ORDER BY started_position LIMIT $4;

-- name: census_of_sagas
-- How many sagas have some statuses, and since when the oldest runs.
SELECT status, count(*), min(started_at) FROM sagas WHERE status = ANY ($1::smallint[]) GROUP BY status;
