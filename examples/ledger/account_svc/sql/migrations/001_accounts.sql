CREATE TABLE accounts (
    account_id text PRIMARY KEY,
    owner      text NOT NULL,
    currency   text NOT NULL,
    cents      bigint NOT NULL,
    fees_cents bigint NOT NULL
);
