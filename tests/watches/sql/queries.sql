-- name: pieces_rows
-- The rows to fold on.
SELECT key, color, version FROM pieces WHERE key = ANY ($1::text[]);

-- name: pieces_upsert
-- Stores folded rows.
INSERT INTO pieces SELECT * FROM unnest($1::pieces[])
ON CONFLICT (key) DO UPDATE SET color = excluded.color, version = excluded.version;

-- name: pieces_delete
-- Removes rows.
DELETE FROM pieces WHERE key = ANY ($1::text[]);

-- name: pieces_of_color
-- What a watch begins with.
SELECT key, color, version FROM pieces WHERE $1 = '' OR color = $1;
