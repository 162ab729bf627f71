-- name: accounts_rows
-- The rows to fold on, their columns in the order of AccountRow.
SELECT account_id, owner, currency, cents, fees_cents FROM accounts WHERE account_id = ANY ($1::text[]);

-- name: accounts_upsert
-- Stores folded rows.
INSERT INTO accounts SELECT * FROM unnest($1::accounts[])
ON CONFLICT (account_id) DO UPDATE SET
    owner = excluded.owner, currency = excluded.currency, cents = excluded.cents, fees_cents = excluded.fees_cents;
