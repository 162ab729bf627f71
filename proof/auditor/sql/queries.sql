-- name: timeline
-- A stretch of one log in the timeline, from after $2 up to $3.
SELECT log, position, order_id, stream_id, type, payload, recorded_at, causation_id, correlation_id, actor
  FROM timeline WHERE log = $1 AND position > $2 AND position <= $3 ORDER BY position;

-- name: timeline_beyond
-- What the timeline has of one log after a position.
SELECT position FROM timeline WHERE log = $1 AND position > $2 ORDER BY position LIMIT 100;
