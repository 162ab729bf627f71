-- The keys of persons: each is made once, and destroyed once.

CREATE TABLE subject_keys (
    subject      text PRIMARY KEY,
    -- The key, encrypted by the wrapping key, or as it is; NULL: destroyed.
    key          bytea,
    -- The name of the wrapping key; empty: none.
    wrapped_by   text NOT NULL DEFAULT '',
    made_at      timestamptz NOT NULL DEFAULT now(),
    destroyed_at timestamptz,
    CHECK ((key IS NULL) = (destroyed_at IS NOT NULL))
);
-- Every process asks once a second who is among the last.
CREATE INDEX subject_keys_destroyed ON subject_keys (destroyed_at) WHERE destroyed_at IS NOT NULL;
CREATE INDEX subject_keys_wrapped ON subject_keys (wrapped_by) WHERE key IS NOT NULL;
