-- name: seen_rows
-- The rows to fold on.
SELECT stream, numbers FROM seen WHERE stream = ANY ($1::text[]);

-- name: seen_upsert
-- Stores folded rows.
INSERT INTO seen SELECT * FROM unnest($1::seen[]) ON CONFLICT (stream) DO UPDATE SET numbers = excluded.numbers;
