-- name: stays_rows
-- The rows to fold on.
SELECT stay_id, guest, paid FROM stays WHERE stay_id = ANY ($1::text[]);

-- name: stays_upsert
-- Stores folded rows.
INSERT INTO stays SELECT * FROM unnest($1::stays[])
ON CONFLICT (stay_id) DO UPDATE SET guest = excluded.guest, paid = excluded.paid;

-- name: stays_delete
-- Takes out the rows that are no more.
DELETE FROM stays WHERE stay_id = ANY ($1::text[]);

-- name: stays_of_guest
-- A guest's stays.
SELECT stay_id, guest, paid FROM stays WHERE guest = $1 ORDER BY stay_id;
