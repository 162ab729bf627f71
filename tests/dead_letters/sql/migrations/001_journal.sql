-- What was written down, one row a key.
CREATE TABLE journal (
    key        text PRIMARY KEY,
    written    text NOT NULL,
    updated_at timestamptz NOT NULL
);
