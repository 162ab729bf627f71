-- name: keys
-- The keys of some persons; NULL: destroyed.
SELECT subject, key, wrapped_by FROM subject_keys WHERE subject = ANY ($1::text[]);

-- name: make_keys
-- The keys of some persons, with new ones for those who never had one. One that is made by another session meanwhile is
-- missing: ask again.
WITH made AS (
    INSERT INTO subject_keys (subject, key, wrapped_by)
    SELECT subject, key, $3 FROM unnest($1::text[], $2::bytea[]) AS new (subject, key) ORDER BY subject
    ON CONFLICT DO NOTHING
    RETURNING subject, key, wrapped_by
)
SELECT subject, key, wrapped_by FROM made
UNION ALL
SELECT subject, key, wrapped_by FROM subject_keys
 WHERE subject = ANY ($1::text[]) AND subject NOT IN (SELECT subject FROM made);

-- name: destroy_key
-- Destroys a key, and leaves a mark that no other is made; gives whether there was one.
WITH was AS (SELECT key IS NOT NULL AS there FROM subject_keys WHERE subject = $1)
INSERT INTO subject_keys (subject, key, wrapped_by, destroyed_at) VALUES ($1, NULL, '', now())
ON CONFLICT (subject) DO UPDATE
   SET key = NULL, wrapped_by = '', destroyed_at = coalesce(subject_keys.destroyed_at, now())
RETURNING coalesce((SELECT there FROM was), false);

-- name: destroyed_keys
-- Whose keys were destroyed within some time before now, and before $2, which may be NULL; and what time it is.
SELECT now(), array(SELECT subject FROM subject_keys WHERE destroyed_at > least(now(), $2::timestamptz) - $1::interval);

-- name: all_destroyed
-- Whose keys were ever destroyed, and when.
SELECT subject, destroyed_at FROM subject_keys WHERE destroyed_at IS NOT NULL ORDER BY destroyed_at, subject;

-- name: keys_to_rewrap
-- Keys that another wrapping key wraps than that one.
SELECT subject, key, wrapped_by FROM subject_keys
 WHERE key IS NOT NULL AND wrapped_by <> $1 ORDER BY subject LIMIT $2 FOR UPDATE SKIP LOCKED;

-- name: rewrap_key
-- Stores a key in its new wrapping.
UPDATE subject_keys SET key = $2, wrapped_by = $3 WHERE subject = $1 AND key IS NOT NULL;

-- name: wrappings
-- How many keys there are, by what wraps them.
SELECT wrapped_by, count(*) FROM subject_keys WHERE key IS NOT NULL GROUP BY wrapped_by ORDER BY wrapped_by;
