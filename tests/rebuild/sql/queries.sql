-- name: stays_rows
-- The rows to fold on.
SELECT stay_id, guest, changes FROM stays WHERE stay_id = ANY ($1::text[]);

-- name: stays_upsert
-- Stores folded rows.
INSERT INTO stays SELECT * FROM unnest($1::stays[])
ON CONFLICT (stay_id) DO UPDATE SET guest = excluded.guest, changes = excluded.changes;

-- name: guests
-- All guests.
SELECT guest FROM stays ORDER BY guest;

-- name: stays_v2_rows
-- The rows to fold on.
SELECT stay_id, guest, changes, loud FROM stays_v2 WHERE stay_id = ANY ($1::text[]);

-- name: stays_v2_upsert
-- Stores folded rows.
INSERT INTO stays_v2 SELECT * FROM unnest($1::stays_v2[])
ON CONFLICT (stay_id) DO UPDATE SET guest = excluded.guest, changes = excluded.changes, loud = excluded.loud;

-- name: guests_v2
-- All guests.
SELECT loud FROM stays_v2 ORDER BY loud;
