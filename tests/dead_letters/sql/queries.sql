-- name: journal_rows
-- The rows to fold on.
SELECT key, written, updated_at FROM journal WHERE key = ANY ($1::text[]);

-- name: journal_upsert
-- Stores folded rows.
INSERT INTO journal SELECT * FROM unnest($1::journal[])
ON CONFLICT (key) DO UPDATE SET written = excluded.written, updated_at = excluded.updated_at;
