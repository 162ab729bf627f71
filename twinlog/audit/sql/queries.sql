-- name: newest
-- The position of the last event that is there; 0 in an empty log.
SELECT coalesce(max(position), 0) FROM events;

-- name: doubled_ids
-- Event ids that stand at several positions after a given one.
SELECT event_id, array_agg(position ORDER BY position) FROM events WHERE position > $1
 GROUP BY event_id HAVING count(*) > 1 ORDER BY 2 LIMIT 100;

-- name: archived_places
-- How many events are archived; of those, how many the table has and how many are named as archived only.
SELECT u.upto, (SELECT count(*) FROM events WHERE position <= u.upto),
       (SELECT coalesce(sum(cardinality(positions)), 0)::bigint FROM archived_streams)
  FROM (SELECT coalesce(max(last), 0) AS upto FROM archived_ranges) AS u;

-- name: requests_beyond
-- Outcomes of requests that point behind the last event.
SELECT request_id, position FROM requests WHERE position NOT BETWEEN 0 AND $1 ORDER BY position LIMIT 100;

-- name: requests_count
-- How many outcomes of requests there are.
SELECT count(*) FROM requests;

-- name: timers
-- Every timer.
SELECT stream_type, stream_id, version, least(greatest(due, '0001-01-02 00:00Z'), '9999-12-30 00:00Z') AS due FROM timers;

-- name: snapshots
-- Which snapshots there are.
SELECT stream_type, stream_id, version, schema FROM snapshots;

-- name: snapshot
-- The state in one snapshot.
SELECT state FROM snapshots WHERE stream_type = $1 AND stream_id = $2;

-- name: kept_keys
-- Which snapshots of older versions are kept.
SELECT stream_type, stream_id, version, schema, event_id FROM kept_snapshots;

-- name: kept_state
-- The state in one of them, and its checksum.
SELECT state, checksum FROM kept_snapshots WHERE stream_type = $1 AND stream_id = $2 AND version = $3;

-- name: dead_letters
-- What happened to dead letters after a position.
SELECT position, stream_id, type, payload FROM events
 WHERE stream_type = 'dead_letters' AND position > $1 ORDER BY position LIMIT $2;

-- name: first_column
-- The first column of a table, which is the key of a view.
SELECT attname::text FROM pg_attribute
 WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum LIMIT 1;
